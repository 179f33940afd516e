/* Slices to series to grid. Nothing here reads a file. */
#include "io/dicom_series.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <map>

namespace vx_io {

namespace {

constexpr double gap_tolerance = 0.01; /* of the slice distance, but at least */
constexpr double gap_floor = 0.02;     /* mm */
constexpr double tilt_tolerance = 0.1; /* degrees */
constexpr double direction_epsilon = 1e-4;
constexpr double degrees = 57.29577951308232;

void add(DicomSeries &s, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void add(DicomSeries &s, const char *code, const char *format, ...) {
    char text[sizeof(vx_series_problem::message)];
    va_list args;
    va_start(args, format);
    std::vsnprintf(text, sizeof text, format, args);
    va_end(args);
    s.problems.push_back({code, text});
}

std::string counted(size_t n, const char *singular) {
    return std::to_string(n) + " " + singular + (n == 1 ? "" : "s");
}

/* "512 x 512 (27 files), 256 x 256 (1 file)", at most three entries. */
std::string listed(const std::map<std::string, size_t> &values, const char *noun) {
    std::string out;
    size_t n = 0;
    for (const auto &[value, files] : values) {
        if (n++ == 3) return out + ", ...";
        out += (out.empty() ? "" : ", ") + value + " (" + counted(files, noun) + ")";
    }
    return out;
}

/* A problem when describe gives more than one answer over the slices. */
template <typename Describe>
void mixed(DicomSeries &s, const char *code, const char *what, Describe &&describe) {
    std::map<std::string, size_t> values;
    for (const DicomSlice &slice : s.slices) values[describe(slice)]++;
    if (values.size() > 1)
        add(s, code, "%zu %s: %s", values.size(), what, listed(values, s.noun()).c_str());
}

bool same_direction(const double a[3], const double b[3]) {
    for (int i = 0; i < 3; i++)
        if (std::fabs(a[i] - b[i]) > direction_epsilon) return false;
    return true;
}

/* Problems that single files bring along, each code once. */
void add_file_problems(DicomSeries &s) {
    std::map<std::string, std::pair<size_t, std::string>> found;
    for (const DicomFile &f : s.files)
        if (!f.problem.empty()) {
            auto &entry = found[f.problem_code];
            if (entry.first++ == 0) entry.second = f.problem;
        }
    for (const auto &[code, entry] : found) {
        if (entry.first == 1 && s.files.size() == 1)
            add(s, code.c_str(), "%s", entry.second.c_str());
        else
            add(s, code.c_str(), "%zu of %s: %s", entry.first,
                counted(s.files.size(), "file").c_str(), entry.second.c_str());
    }
}

/* The first three values of ImageType say what the pixels are (LOCALIZER, AXIAL, M, P...); the
 * others differ in harmless ways, e.g. "ADD" on the slices that a GE scanner summed. */
std::string frame_type(const DicomSlice &slice) {
    size_t end = 0;
    for (int values = 0; values < 3 && end != std::string::npos; values++)
        end = slice.type.find('\\', end == 0 ? 0 : end + 1);
    return slice.type.empty() ? "none" : slice.type.substr(0, end);
}

void add_mixtures(DicomSeries &s) {
    const auto text = [](const char *format, double a, double b) {
        char buffer[64];
        std::snprintf(buffer, sizeof buffer, format, a, b);
        return std::string(buffer);
    };
    mixed(s, "mixed-sizes", "slice sizes", [&](const DicomSlice &slice) {
        const DicomFile &f = s.file_of(slice);
        return text("%.0f x %.0f", f.columns, f.rows);
    });
    mixed(s, "mixed-spacings", "pixel spacings", [&](const DicomSlice &slice) {
        return text("%.4g x %.4g mm", slice.spacing[0], slice.spacing[1]);
    });
    mixed(s, "mixed-types", "frame types", frame_type);
}

/* The order along a normal needs one normal. */
bool add_orientations(DicomSeries &s) {
    std::vector<std::pair<const DicomSlice *, size_t>> directions;
    for (const DicomSlice &slice : s.slices) {
        auto it = std::find_if(directions.begin(), directions.end(), [&](const auto &d) {
            return same_direction(d.first->along_row, slice.along_row) &&
                   same_direction(d.first->along_column, slice.along_column);
        });
        if (it == directions.end())
            directions.push_back({&slice, 1});
        else
            it->second++;
    }
    if (directions.size() < 2) return false;
    add(s, "several-orientations",
        "%zu slice orientations, the first with %zu of %zu %ss (localizers?)", directions.size(),
        directions.front().second, s.slices.size(), s.noun());
    return true;
}

/* The first trait that differs, of each. */
std::string difference(const DicomSlice &a, const DicomSlice &b) {
    for (size_t i = 0; i < std::max(a.traits.size(), b.traits.size()); i++) {
        const std::string x = i < a.traits.size() ? a.traits[i] : "nothing";
        const std::string y = i < b.traits.size() ? b.traits[i] : "nothing";
        if (x != y) return "'" + one_line(x, 60) + "' and '" + one_line(y, 60) + "'";
    }
    return "";
}

/* Several slices at one position: copies of a slice, or volumes that differ in something. */
void add_duplicates(DicomSeries &s, const std::vector<double> &along) {
    size_t duplicates = 0, first = 0;
    for (size_t i = 1; i < along.size(); i++)
        if (along[i] - along[i - 1] < same_position && duplicates++ == 0) first = i;
    if (duplicates == 0) return;
    const std::string differ = difference(s.slices[first - 1], s.slices[first]);
    if (!differ.empty())
        add(s, "several-volumes",
            "%s at a position that another slice holds, e.g. at %.2f mm: %s (several echoes, "
            "phases or time points)",
            counted(duplicates, "slice").c_str(), along[first], differ.c_str());
    else
        add(s, "duplicate-slices", "%s at a position that another slice holds, first at %.2f mm",
            counted(duplicates, "slice").c_str(), along[first]);
}

void add_gaps(DicomSeries &s, const std::vector<double> &along) {
    std::vector<double> gaps;
    for (size_t i = 1; i < along.size(); i++) gaps.push_back(along[i] - along[i - 1]);
    std::vector<double> sorted = gaps;
    std::sort(sorted.begin(), sorted.end());
    const double usual = sorted[sorted.size() / 2];
    const double tolerance = std::max(gap_floor, gap_tolerance * usual);
    size_t uneven = 0, missing = 0, at = 0;
    bool whole = true; /* every odd gap is a multiple of the usual one */
    for (size_t i = 0; i < gaps.size(); i++) {
        if (std::fabs(gaps[i] - usual) <= tolerance) continue;
        if (uneven++ == 0) at = i;
        const double multiple = std::round(gaps[i] / usual);
        whole =
            whole && multiple >= 2 && std::fabs(gaps[i] - multiple * usual) <= multiple * tolerance;
        missing += multiple >= 2 ? static_cast<size_t>(multiple) - 1 : 0;
    }
    if (uneven == 0) return;
    if (whole)
        add(s, "missing-slices",
            "%s missing, first between %.2f and %.2f mm (gap %.3f, others %.3f mm)",
            counted(missing, "slice").c_str(), along[at], along[at + 1], gaps[at], usual);
    else
        add(s, "uneven-gaps",
            "uneven slice distances, %.3f to %.3f mm (%zu of %zu differ from %.3f mm)",
            sorted.front(), sorted.back(), uneven, gaps.size(), usual);
}

/* Slices must lie behind each other along the normal; a tilted gantry shifts each a little. */
void add_shear(DicomSeries &s, const double normal[3], const std::vector<double> &along) {
    const DicomSlice &first = s.slices.front(), &last = s.slices.back();
    const double length = along.back() - along.front();
    double side[3], shift = 0;
    for (int i = 0; i < 3; i++) {
        side[i] = last.position[i] - first.position[i] - normal[i] * length;
        shift += side[i] * side[i];
    }
    shift = std::sqrt(shift);
    const double angle = std::atan2(shift, length) * degrees;
    if (angle > tilt_tolerance) {
        char header[64] = "";
        const double said = s.file_of(first).tilt;
        if (said != 0) std::snprintf(header, sizeof header, "; the header's tilt is %.2f", said);
        add(s, "tilt", "gantry tilt or shear of %.2f degrees: slices shift by %.3f mm each%s",
            angle, shift / static_cast<double>(s.slices.size() - 1), header);
        return;
    }
    double worst = 0;
    for (size_t k = 0; k < s.slices.size(); k++) {
        const double t = (along[k] - along.front()) / length;
        double off = 0;
        for (int i = 0; i < 3; i++) {
            const double expected = first.position[i] + t * (last.position[i] - first.position[i]);
            off += std::pow(s.slices[k].position[i] - expected, 2);
        }
        worst = std::max(worst, std::sqrt(off));
    }
    const double tolerance =
        std::max(gap_floor, 0.01 * std::min(first.spacing[0], first.spacing[1]));
    if (worst > tolerance)
        add(s, "shifted-slices", "slices are shifted sideways by up to %.3f mm", worst);
}

void set_grid(DicomSeries &s) {
    const DicomSlice &first = s.slices.front(), &last = s.slices.back();
    const DicomFile &f = s.file_of(first);
    const double n = static_cast<double>(s.slices.size() - 1);
    s.geo = vx_geometry{};
    s.geo.dims[0] = f.columns;
    s.geo.dims[1] = f.rows;
    s.geo.dims[2] = s.slices.size();
    if (!first.has_geometry) return;
    double step[3] = {0, 0, 0};
    for (int i = 0; i < 3 && n > 0; i++) step[i] = (last.position[i] - first.position[i]) / n;
    set_affine(first, first.position, step, s.geo);
}

void examine(DicomSeries &s) {
    add_file_problems(s);
    set_grid(s);
    if (!s.problems.empty()) return; /* geometry or pixels are not known for all */
    add_mixtures(s);
    if (add_orientations(s)) return;
    double normal[3];
    slice_normal(s.slices.front(), normal);
    std::stable_sort(s.slices.begin(), s.slices.end(),
                     [&](const DicomSlice &a, const DicomSlice &b) {
                         return along(normal, a.position) < along(normal, b.position);
                     });
    set_grid(s);
    if (s.slices.size() == 1) {
        add(s, "single-slice", "one slice: a 3D volume is needed");
        return;
    }
    std::vector<double> heights, distinct;
    for (const DicomSlice &slice : s.slices) {
        heights.push_back(along(normal, slice.position));
        if (distinct.empty() || heights.back() - distinct.back() >= same_position)
            distinct.push_back(heights.back());
    }
    add_duplicates(s, heights);
    if (distinct.size() == 1) add(s, "single-slice", "one position: a 3D volume is needed");
    if (distinct.size() > 2) add_gaps(s, distinct);
    if (distinct.size() > 1) add_shear(s, normal, heights);
}

bool is_localizer(const DicomSeries &s) {
    for (const DicomSlice &slice : s.slices)
        if (slice.type.find("\\LOCALIZER") == std::string::npos) return false;
    return true;
}

/* "801/2": what --series takes. */
std::string number_of(const DicomSeries &s) {
    const std::string number = std::to_string(s.files.front().series_number);
    return s.part ? number + "/" + std::to_string(s.part) : number;
}

std::string summary(const DicomSeries &s) {
    const DicomFile &f = s.files.front();
    return number_of(s) + " (" + (f.modality.empty() ? "?" : f.modality) + ", " +
           (s.contents.empty() ? "" : one_line(s.contents, 60) + ", ") +
           counted(s.slices.size(), s.noun()) + ")";
}

std::string summaries(const std::vector<const DicomSeries *> &list) {
    std::string out;
    for (const DicomSeries *s : list) {
        if (out.size() >= 200) return out + ", ...";
        out += (out.empty() ? "" : ", ") + summary(*s);
    }
    return out.empty() ? "none" : out;
}

bool is_named(const DicomSeries &s, const std::string &wanted) {
    const std::string &uid = s.files.front().series_uid;
    return wanted == uid || wanted == std::to_string(s.files.front().series_number) ||
           (s.part && (wanted == number_of(s) || wanted == uid + "/" + std::to_string(s.part)));
}

/* Resampling to a straight, even grid helps against these. */
bool is_tolerable(const std::string &code) {
    return code == "tilt" || code == "uneven-gaps" || code == "missing-slices" ||
           code == "shifted-slices" || code == "duplicate-slices";
}

DicomSeries series_of_files(std::vector<DicomFile> &&files) {
    DicomSeries s;
    s.files = std::move(files);
    for (size_t i = 0; i < s.files.size(); i++) {
        for (DicomSlice &slice : s.files[i].slices) {
            slice.file = static_cast<uint32_t>(i);
            s.slices.push_back(std::move(slice));
        }
        s.files[i].slices.clear();
    }
    return s;
}

} // namespace

void slice_normal(const DicomSlice &slice, double normal[3]) {
    const double *u = slice.along_row, *v = slice.along_column;
    for (int i = 0; i < 3; i++) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        normal[i] = u[j] * v[k] - u[k] * v[j];
    }
}

double along(const double direction[3], const double position[3]) {
    return direction[0] * position[0] + direction[1] * position[1] + direction[2] * position[2];
}

void set_affine(const DicomSlice &slice, const double position[3], const double step[3],
                vx_geometry &geo) {
    for (int r = 0; r < 3; r++) {
        const double sign = r < 2 ? -1 : 1; /* LPS to RAS; + 0.0 makes -0 a 0 */
        geo.affine[r][0] = sign * slice.along_row[r] * slice.spacing[0] + 0.0;
        geo.affine[r][1] = sign * slice.along_column[r] * slice.spacing[1] + 0.0;
        geo.affine[r][2] = sign * step[r] + 0.0;
        geo.affine[r][3] = sign * position[r] + 0.0;
    }
    geo.affine[3][3] = 1;
}

std::vector<DicomSeries> group_series(DicomFolder &&folder) {
    /* Objects that are no volume stay apart even under a volume's UID; but one that lies somewhere
     * in the patient may be a slice of it whose class is damaged: it is a problem of the volume. */
    std::map<std::pair<std::string, bool>, std::vector<DicomFile>> groups;
    for (DicomFile &f : folder.files) {
        const bool apart = f.kind == DicomKind::other && !f.slices[0].has_geometry;
        groups[{f.series_uid, apart}].push_back(std::move(f));
    }
    std::vector<DicomSeries> out;
    for (auto &group : groups) {
        DicomSeries s = series_of_files(std::move(group.second));
        examine(s);
        const bool mixed = std::any_of(s.problems.begin(), s.problems.end(),
                                       [](const auto &p) { return p.code == "several-volumes"; });
        std::vector<DicomSeries> parts;
        if (mixed) parts = split_parts(DicomSeries(s));
        if (parts.size() < 2)
            out.push_back(std::move(s));
        else
            for (DicomSeries &part : parts) {
                part.problems.clear();
                examine(part);
                out.push_back(std::move(part));
            }
    }
    std::stable_sort(out.begin(), out.end(), [](const DicomSeries &a, const DicomSeries &b) {
        return a.files.front().series_number < b.files.front().series_number;
    });
    for (DicomSeries &s : out)
        if (!folder.damaged.empty())
            add(s, "damaged-files", "%s in the folder cannot be read, e.g. %s",
                counted(folder.damaged.size(), "file").c_str(), folder.damaged.front().c_str());
    if (out.empty() && !folder.damaged.empty())
        fail(VX_ERR_INPUT, "no readable DICOM image: %s", folder.damaged.front().c_str());
    return out;
}

void keep_named(std::vector<DicomSeries> &series, const char *wanted) {
    if (series.empty()) fail(VX_ERR_INPUT, "no DICOM image here");
    if (!wanted) return;
    std::vector<const DicomSeries *> all;
    for (const DicomSeries &s : series) all.push_back(&s);
    const std::string list = summaries(all);
    series.erase(std::remove_if(series.begin(), series.end(),
                                [&](const DicomSeries &s) { return !is_named(s, wanted); }),
                 series.end());
    if (series.empty())
        fail(VX_ERR_INPUT, "no series '%s' among: %s", quotable(wanted, 70).c_str(), list.c_str());
}

DicomSeries &choose_series(std::vector<DicomSeries> &series, const char *wanted) {
    keep_named(series, wanted);
    std::vector<const DicomSeries *> fitting;
    DicomSeries *volume = nullptr, *plain = nullptr;
    size_t plains = 0;
    for (DicomSeries &s : series) {
        if (!wanted && !s.is_volume()) continue;
        fitting.push_back(volume = &s);
        if (is_localizer(s)) continue;
        plain = &s;
        plains++;
    }
    if (fitting.size() == 1) return *volume;
    if (plains == 1 && !wanted) return *plain; /* localizers beside it are no choice */
    if (fitting.size() > 1)
        fail(VX_ERR_INPUT, "%zu series%s: %s (choose one by --series UID or NUMBER)",
             fitting.size(), wanted ? " of that name" : "", summaries(fitting).c_str());
    fail(VX_ERR_INPUT, "no DICOM volume here: %s", series.front().problems.front().message.c_str());
}

void refuse_problems(const DicomSeries &s, bool tolerate) {
    static const struct {
        const char *code, *advice;
    } table[] = {{"damaged-files", "export the series again"},
                 {"several-volumes", "move one of them to its own folder"},
                 {"several-orientations", "move one of them to its own folder"},
                 {"mixed-types", "move one of them to its own folder"},
                 {"mixed-sizes", "move one of them to its own folder"}};
    bool tolerable = true;
    std::string text, advice;
    for (const auto &problem : s.problems) {
        text += (text.empty() ? "" : "; ") + problem.message;
        tolerable = tolerable && is_tolerable(problem.code);
        for (const auto &row : table)
            if (advice.empty() && problem.code == row.code) advice = row.advice;
    }
    if (tolerable && (tolerate || s.problems.empty())) return;
    if (tolerable) advice = "--tolerate-geometry resamples to a straight, even grid";
    if (!advice.empty()) text += " (" + advice + ")";
    throw Failure{VX_ERR_INPUT, text};
}

} // namespace vx_io
