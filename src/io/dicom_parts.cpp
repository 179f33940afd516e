/* Several volumes in one series: echoes, phases, time points, frame types. */
#include <algorithm>
#include <map>

#include "io/dicom_series.h"

namespace vx_io {

namespace {

std::string name_of(const std::string &trait) { return trait.substr(0, trait.find(' ')); }

/* The slice's value of one attribute, or of all of them for the name "". */
std::string key_of(const DicomSlice &slice, const std::string &name) {
    std::string all;
    for (const std::string &trait : slice.traits) {
        if (name_of(trait) == name) return trait;
        all += (all.empty() ? "" : ", ") + trait;
    }
    return name.empty() ? all : name + " missing";
}

using Parts = std::map<std::string, std::vector<const DicomSlice *>>;

/* Whether each part holds each of its positions once, and all are equally large. slices come in
 * order along the normal. */
bool are_volumes(const Parts &parts, const double normal[3]) {
    const size_t count = parts.begin()->second.size();
    if (parts.size() < 2 || count < 2) return false;
    for (const auto &[key, slices] : parts) {
        if (slices.size() != count) return false;
        for (size_t i = 1; i < count; i++)
            if (along(normal, slices[i]->position) - along(normal, slices[i - 1]->position) <
                same_position)
                return false;
    }
    return true;
}

/* With the files that the slices lie in, and no others. */
DicomSeries part_of(const DicomSeries &whole, const std::vector<const DicomSlice *> &slices) {
    DicomSeries out;
    std::map<uint32_t, uint32_t> moved;
    for (const DicomSlice *slice : slices) {
        const auto [it, added] =
            moved.emplace(slice->file, static_cast<uint32_t>(out.files.size()));
        if (added) out.files.push_back(whole.files[slice->file]);
        out.slices.push_back(*slice);
        out.slices.back().file = it->second;
    }
    return out;
}

/* Echo 2 before echo 10: by the number where the value is one. */
bool before(const std::string &a, const std::string &b) {
    const double x = std::atof(a.c_str() + std::min(a.size(), name_of(a).size() + 1));
    const double y = std::atof(b.c_str() + std::min(b.size(), name_of(b).size() + 1));
    return x != y ? x < y : a < b;
}

} // namespace

std::vector<DicomSeries> split_parts(DicomSeries &&series) {
    std::vector<std::string> names;
    for (const DicomSlice &slice : series.slices)
        for (const std::string &trait : slice.traits)
            if (std::find(names.begin(), names.end(), name_of(trait)) == names.end())
                names.push_back(name_of(trait));
    names.push_back(""); /* all together, last */
    double normal[3];
    slice_normal(series.slices.front(), normal);
    for (const std::string &name : names) {
        Parts parts;
        for (const DicomSlice &slice : series.slices) parts[key_of(slice, name)].push_back(&slice);
        if (!are_volumes(parts, normal)) continue;
        std::vector<std::string> keys;
        for (const auto &part : parts) keys.push_back(part.first);
        std::sort(keys.begin(), keys.end(), before);
        std::vector<DicomSeries> out;
        for (const std::string &key : keys) {
            out.push_back(part_of(series, parts[key]));
            out.back().part = static_cast<int>(out.size());
            out.back().contents = key;
        }
        return out;
    }
    std::vector<DicomSeries> whole;
    whole.push_back(std::move(series));
    return whole;
}

} // namespace vx_io
