/* Slices to series to grid. Nothing here reads a file. */
#include "io/dicom_series.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <map>

namespace vx_io {

namespace {

/* Positions are written as decimal text, often with two or three digits; a real fault is larger. */
constexpr double same_position = 0.01; /* mm */
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
std::string listed(const std::map<std::string, size_t> &values) {
    std::string out;
    size_t n = 0;
    for (const auto &[value, files] : values) {
        if (n++ == 3) return out + ", ...";
        out += (out.empty() ? "" : ", ") + value + " (" + counted(files, "file") + ")";
    }
    return out;
}

/* One problem when describe gives more than one answer over the files. Returns true if so. */
template <typename Describe>
bool mixed(DicomSeries &s, const char *code, const char *what, Describe &&describe) {
    std::map<std::string, size_t> values;
    for (const DicomFile &f : s.files) values[describe(f)]++;
    if (values.size() < 2) return false;
    add(s, code, "%zu %s: %s", values.size(), what, listed(values).c_str());
    return true;
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
std::string frame_type(const DicomFile &f) {
    size_t end = 0;
    for (int values = 0; values < 3 && end != std::string::npos; values++)
        end = f.image_type.find('\\', end == 0 ? 0 : end + 1);
    return f.image_type.empty() ? "none" : f.image_type.substr(0, end);
}

void add_mixtures(DicomSeries &s) {
    const auto text = [](const char *format, double a, double b) {
        char buffer[64];
        std::snprintf(buffer, sizeof buffer, format, a, b);
        return std::string(buffer);
    };
    mixed(s, "mixed-sizes", "slice sizes",
          [&](const DicomFile &f) { return text("%.0f x %.0f", f.columns, f.rows); });
    mixed(s, "mixed-spacings", "pixel spacings",
          [&](const DicomFile &f) { return text("%.4g x %.4g mm", f.spacing[0], f.spacing[1]); });
    mixed(s, "mixed-types", "frame types", frame_type);
}

/* The order along a normal needs one normal. */
bool add_orientations(DicomSeries &s) {
    std::vector<std::pair<const DicomFile *, size_t>> directions;
    for (const DicomFile &f : s.files) {
        auto it = std::find_if(directions.begin(), directions.end(), [&](const auto &d) {
            return same_direction(d.first->along_row, f.along_row) &&
                   same_direction(d.first->along_column, f.along_column);
        });
        if (it == directions.end())
            directions.push_back({&f, 1});
        else
            it->second++;
    }
    if (directions.size() < 2) return false;
    add(s, "several-orientations",
        "%zu slice orientations, the first with %zu of %zu files (localizers?)", directions.size(),
        directions.front().second, s.files.size());
    return true;
}

/* Several files at one position: copies of a slice, or volumes that differ in something. */
bool add_duplicates(DicomSeries &s, const std::vector<double> &along) {
    size_t duplicates = 0, first = 0;
    for (size_t i = 1; i < along.size(); i++)
        if (along[i] - along[i - 1] < same_position && duplicates++ == 0) first = i;
    if (duplicates == 0) return false;
    const DicomFile &a = s.files[first - 1], &b = s.files[first];
    if (a.moment != b.moment)
        add(s, "several-volumes",
            "%s at a position that another slice holds, e.g. at %.2f mm: '%s' and '%s' (several "
            "echoes, phases or time points)",
            counted(duplicates, "slice").c_str(), along[first], one_line(a.moment, 40).c_str(),
            one_line(b.moment, 40).c_str());
    else
        add(s, "duplicate-slices", "%s at a position that another slice holds, first at %.2f mm",
            counted(duplicates, "slice").c_str(), along[first]);
    return true;
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
    const DicomFile &first = s.files.front(), &last = s.files.back();
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
        if (first.tilt != 0)
            std::snprintf(header, sizeof header, "; the header's tilt is %.2f", first.tilt);
        add(s, "tilt", "gantry tilt or shear of %.2f degrees: slices shift by %.3f mm each%s",
            angle, shift / static_cast<double>(s.files.size() - 1), header);
        return;
    }
    double worst = 0;
    for (size_t k = 0; k < s.files.size(); k++) {
        const double t = (along[k] - along.front()) / length;
        double off = 0;
        for (int i = 0; i < 3; i++) {
            const double expected = first.position[i] + t * (last.position[i] - first.position[i]);
            off += std::pow(s.files[k].position[i] - expected, 2);
        }
        worst = std::max(worst, std::sqrt(off));
    }
    const double tolerance =
        std::max(gap_floor, 0.01 * std::min(first.spacing[0], first.spacing[1]));
    if (worst > tolerance)
        add(s, "shifted-slices", "slices are shifted sideways by up to %.3f mm", worst);
}

void set_grid(DicomSeries &s) {
    const DicomFile &first = s.files.front(), &last = s.files.back();
    const double n = static_cast<double>(s.files.size() - 1);
    s.geo.dims[0] = first.columns;
    s.geo.dims[1] = first.rows;
    s.geo.dims[2] = s.files.size();
    if (!first.has_geometry) return;
    for (int r = 0; r < 3; r++) {
        const double sign = r < 2 ? -1 : 1; /* LPS to RAS; + 0.0 makes -0 a 0 */
        s.geo.affine[r][0] = sign * first.along_row[r] * first.spacing[0] + 0.0;
        s.geo.affine[r][1] = sign * first.along_column[r] * first.spacing[1] + 0.0;
        if (n > 0) s.geo.affine[r][2] = sign * (last.position[r] - first.position[r]) / n + 0.0;
        s.geo.affine[r][3] = sign * first.position[r] + 0.0;
    }
    s.geo.affine[3][3] = 1;
}

void examine(DicomSeries &s) {
    add_file_problems(s);
    set_grid(s);
    if (!s.problems.empty()) return; /* geometry or pixels are not known for all */
    add_mixtures(s);
    if (add_orientations(s)) return;
    const DicomFile &f = s.files.front();
    const double *u = f.along_row, *v = f.along_column;
    const double normal[3] = {u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2],
                              u[0] * v[1] - u[1] * v[0]};
    const auto height = [&](const DicomFile &g) {
        return normal[0] * g.position[0] + normal[1] * g.position[1] + normal[2] * g.position[2];
    };
    std::stable_sort(s.files.begin(), s.files.end(),
                     [&](const DicomFile &a, const DicomFile &b) { return height(a) < height(b); });
    set_grid(s);
    if (s.files.size() == 1) {
        add(s, "single-slice", "one slice: a 3D volume is needed");
        return;
    }
    std::vector<double> along;
    for (const DicomFile &g : s.files) along.push_back(height(g));
    if (add_duplicates(s, along)) return;
    if (along.size() > 2) add_gaps(s, along);
    add_shear(s, normal, along);
}

std::string summary(const DicomSeries &s) {
    const DicomFile &f = s.files.front();
    return std::to_string(f.series_number) + " (" + (f.modality.empty() ? "?" : f.modality) + ", " +
           counted(s.files.size(), "file") + ")";
}

} // namespace

std::vector<DicomSeries> group_series(DicomFolder &&folder) {
    /* Objects that are no volume stay apart even under a volume's UID. */
    std::map<std::pair<std::string, bool>, DicomSeries> groups;
    for (DicomFile &f : folder.files) {
        const bool other = f.kind == DicomKind::other;
        groups[{f.series_uid, other}].files.push_back(std::move(f));
    }
    std::vector<DicomSeries> out;
    for (auto &group : groups) out.push_back(std::move(group.second));
    std::stable_sort(out.begin(), out.end(), [](const DicomSeries &a, const DicomSeries &b) {
        return a.files.front().series_number < b.files.front().series_number;
    });
    for (DicomSeries &s : out) {
        examine(s);
        if (!folder.damaged.empty())
            add(s, "damaged-files", "%s in the folder cannot be read, e.g. %s",
                counted(folder.damaged.size(), "file").c_str(), folder.damaged.front().c_str());
    }
    if (out.empty() && !folder.damaged.empty())
        fail(VX_ERR_INPUT, "no readable DICOM image: %s", folder.damaged.front().c_str());
    return out;
}

DicomSeries &choose_series(std::vector<DicomSeries> &series, const char *wanted) {
    std::vector<DicomSeries *> fitting;
    std::string list;
    for (DicomSeries &s : series) {
        const DicomFile &f = s.files.front();
        if (!wanted && !s.is_volume()) continue;
        if (wanted && f.series_uid != wanted && std::to_string(f.series_number) != wanted) continue;
        fitting.push_back(&s);
        if (list.size() < 200) list += (list.empty() ? "" : ", ") + summary(s);
    }
    if (fitting.size() == 1) return *fitting.front();
    if (fitting.size() > 1)
        fail(VX_ERR_INPUT, "%zu series%s: %s (choose one by --series UID or NUMBER)",
             fitting.size(), wanted ? " of that name" : "", list.c_str());
    if (wanted) {
        for (DicomSeries &s : series)
            if (list.size() < 200) list += (list.empty() ? "" : ", ") + summary(s);
        fail(VX_ERR_INPUT, "no series '%s' among: %s", one_line(wanted, 70).c_str(),
             list.empty() ? "none" : list.c_str());
    }
    if (series.empty()) fail(VX_ERR_INPUT, "no DICOM image here");
    fail(VX_ERR_INPUT, "no DICOM volume here: %s", series.front().problems.front().message.c_str());
}

void refuse_problems(const DicomSeries &s) {
    static const struct {
        const char *code, *advice;
    } table[] = {{"tilt", "reconstruct without tilt; resampling is not supported yet"},
                 {"uneven-gaps", "reconstruct evenly; resampling is not supported yet"},
                 {"missing-slices", "export the series again"},
                 {"damaged-files", "export the series again"},
                 {"duplicate-slices", "remove the copies"},
                 {"several-volumes", "move one of them to its own folder"},
                 {"several-orientations", "move one of them to its own folder"},
                 {"mixed-types", "move one of them to its own folder"},
                 {"mixed-sizes", "move one of them to its own folder"}};
    if (s.problems.empty()) return;
    std::string text, advice;
    for (const auto &problem : s.problems) {
        text += (text.empty() ? "" : "; ") + problem.message;
        for (const auto &row : table)
            if (advice.empty() && problem.code == row.code) advice = row.advice;
    }
    if (!advice.empty()) text += " (" + advice + ")";
    throw Failure{VX_ERR_INPUT, text};
}

} // namespace vx_io
