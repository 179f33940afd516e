/* NRRD headers, after the format's description at teem.sourceforge.net/nrrd/format.html. */
#include <cmath>
#include <map>

#include "io/itk_header.h"

namespace vx_io {

namespace {

using Fields = std::map<std::string, std::string_view>;

/* Field names may be written with or without blanks, in any case; keys here are lower case without
 * blanks, one name for each synonym. */
std::string field_key(std::string_view name) {
    std::string key;
    for (char c : lower(trim(name)))
        if (c != ' ' && c != '\t') key += c;
    if (key == "datafile") return "datafile";
    if (key == "centerings") return "centers";
    return key;
}

Fields read_fields(HeaderText &text, bool &ended_by_blank_line) {
    std::string_view line;
    if (!text.line(line) || line.size() < 8 || line.substr(0, 4) != "NRRD" ||
        line.substr(4, 3) != "000" || line[7] < '1' || line[7] > '5')
        fail(VX_ERR_INPUT, "not a NRRD file (its first line is not NRRD0001 to NRRD0005)");
    Fields fields;
    ended_by_blank_line = false;
    while (text.line(line)) {
        if (line.empty()) {
            ended_by_blank_line = true;
            break;
        }
        if (line[0] == '#') continue;
        const size_t colon = line.find(':');
        if (colon == std::string_view::npos)
            fail(VX_ERR_INPUT, "the NRRD header's line '%s' is neither a field nor a key",
                 shown(line).c_str());
        if (colon + 1 < line.size() && line[colon + 1] == '=') continue; /* key:=value */
        const std::string key = field_key(line.substr(0, colon));
        if (!fields.emplace(key, trim(line.substr(colon + 1))).second)
            fail(VX_ERR_INPUT, "the NRRD header gives '%s' twice", shown(key).c_str());
        /* A list of data files would follow in the header. */
        if (key == "datafile" && lower(fields[key]).substr(0, 4) == "list") break;
    }
    return fields;
}

std::string_view get(const Fields &fields, const char *key) {
    const auto it = fields.find(key);
    return it == fields.end() ? std::string_view() : it->second;
}

std::string_view need(const Fields &fields, const char *key) {
    const std::string_view v = get(fields, key);
    if (v.empty()) fail(VX_ERR_INPUT, "the NRRD header lacks '%s'", key);
    return v;
}

Scalar parse_type(std::string_view name) {
    static const struct {
        const char *names; /* each between blanks_ of '|' */
        Scalar type;
    } table[] = {
        {"|signed char|int8|int8_t|", Scalar::i8},
        {"|uchar|unsigned char|uint8|uint8_t|", Scalar::u8},
        {"|short|short int|signed short|signed short int|int16|int16_t|", Scalar::i16},
        {"|ushort|unsigned short|unsigned short int|uint16|uint16_t|", Scalar::u16},
        {"|int|signed int|int32|int32_t|", Scalar::i32},
        {"|uint|unsigned int|uint32|uint32_t|", Scalar::u32},
        {"|longlong|long long|long long int|signed long long|signed long long int|int64|int64_t|",
         Scalar::i64},
        {"|ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t|", Scalar::u64},
        {"|float|", Scalar::f32},
        {"|double|", Scalar::f64},
    };
    const std::string wanted = "|" + lower(name) + "|";
    for (const auto &row : table)
        if (std::string_view(row.names).find(wanted) != std::string_view::npos) return row.type;
    fail(VX_ERR_INPUT, "NRRD voxels of type '%s' are not supported", shown(name).c_str());
}

Encoding parse_encoding(std::string_view name) {
    const std::string e = lower(name);
    if (e == "raw") return Encoding::raw;
    if (e == "txt" || e == "text" || e == "ascii") return Encoding::text;
    if (e == "hex") return Encoding::hex;
    if (e == "gz" || e == "gzip") return Encoding::gzip;
    fail(VX_ERR_INPUT, "NRRD encoding '%s' is not supported (save it as gzip or raw)",
         shown(name).c_str());
}

/* "(a,b,c)" or "none" from the front of s. */
bool take_vector(std::string_view &s, const char *field, std::vector<double> &out) {
    s = trim(s);
    out.clear();
    if (lower(s.substr(0, 4)) == "none") {
        s.remove_prefix(4);
        return false;
    }
    const size_t close = s.find(')');
    if (s.empty() || s[0] != '(' || close == std::string_view::npos)
        fail(VX_ERR_INPUT, "NRRD field '%s' has no (x,y,z) at '%s'", field, shown(s).c_str());
    std::string_view inside = s.substr(1, close - 1);
    s.remove_prefix(close + 1);
    for (;;) {
        const size_t comma = inside.find(',');
        out.push_back(parse_double(inside.substr(0, comma), field));
        if (comma == std::string_view::npos) return true;
        inside.remove_prefix(comma + 1);
    }
}

/* One entry an axis of the file: empty for "none". */
using AxisVectors = std::vector<std::vector<double>>;

struct Layout {
    std::vector<size_t> sizes;
    size_t axis[3]; /* the file's axes that are x, y, z */
};

std::vector<size_t> read_sizes(const Fields &fields) {
    const long long dimension = parse_integer(need(fields, "dimension"), "dimension");
    if (dimension < 1 || dimension > 16)
        fail(VX_ERR_INPUT, "NRRD dimension %lld is not supported", dimension);
    const auto list = words(need(fields, "sizes"));
    if (list.size() != static_cast<size_t>(dimension))
        fail(VX_ERR_INPUT, "NRRD dimension is %lld, but sizes has %zu entries", dimension,
             list.size());
    std::vector<size_t> sizes;
    for (auto word : list) {
        const long long n = parse_integer(word, "sizes");
        if (n < 1) fail(VX_ERR_INPUT, "NRRD sizes holds %lld (each must be at least 1)", n);
        sizes.push_back(static_cast<size_t>(n));
    }
    return sizes;
}

/* Which three axes are space. Others must have the size 1. */
Layout find_axes(const Fields &fields, const AxisVectors &directions) {
    Layout layout;
    layout.sizes = read_sizes(fields);
    std::vector<size_t> space;
    for (size_t i = 0; i < layout.sizes.size(); i++)
        if (directions.empty() ? layout.sizes[i] > 1 || i < 3 : !directions[i].empty())
            space.push_back(i);
    const auto kinds = words(get(fields, "kinds"));
    for (size_t i = 0; i < layout.sizes.size(); i++) {
        bool is_space = false;
        for (size_t s : space) is_space = is_space || s == i;
        const std::string kind = i < kinds.size() ? lower(kinds[i]) : "";
        const bool colour = kind.find("color") != std::string::npos ||
                            kind.find("vector") != std::string::npos || kind == "complex" ||
                            kind == "quaternion" || kind == "point" ||
                            kind.find("matrix") != std::string::npos;
        if (colour && layout.sizes[i] > 1)
            fail(VX_ERR_INPUT, "%zu values a voxel (%s): RGB and vector images are not supported",
                 layout.sizes[i], kind.c_str());
        if (!is_space && layout.sizes[i] > 1) {
            if (!get(fields, "dimension").empty() && kind == "list" && layout.sizes.size() == 4)
                fail(VX_ERR_INPUT,
                     "4D: %zu layers of voxels, e.g. overlapping segments (export one layer)",
                     layout.sizes[i]);
            fail(VX_ERR_INPUT, "%zuD: axis %zu of size %zu is not one of space (3D is needed)",
                 layout.sizes.size(), i + 1, layout.sizes[i]);
        }
    }
    if (space.size() < 3) fail(VX_ERR_INPUT, "%zuD image: a 3D volume is needed", space.size());
    if (space.size() > 3) fail(VX_ERR_INPUT, "%zuD image: a 3D volume is needed", space.size());
    for (int i = 0; i < 3; i++) layout.axis[i] = space[static_cast<size_t>(i)];
    return layout;
}

/* Signs that take the file's world to RAS. */
void space_signs(const Fields &fields, const vx_log *log, double sign[3]) {
    const std::string space = lower(get(fields, "space"));
    sign[0] = sign[1] = -1; /* LPS */
    sign[2] = 1;
    if (space == "left-posterior-superior" || space == "lps") return;
    if (space == "right-anterior-superior" || space == "ras") {
        sign[0] = sign[1] = 1;
        return;
    }
    if (space == "left-anterior-superior" || space == "las") {
        sign[1] = 1;
        return;
    }
    if (space.find("time") != std::string::npos || space == "rast" || space == "last" ||
        space == "lpst")
        fail(VX_ERR_INPUT, "4D: NRRD space '%s' has a time axis", shown(space).c_str());
    static const char *const others[] = {"scanner-xyz",     "scannerxyz",    "3d-right-handed",
                                         "3d right handed", "3drighthanded", "3d-left-handed",
                                         "3d left handed",  "3dlefthanded"};
    bool known = space.empty() && !get(fields, "spacedimension").empty();
    for (const char *other : others) known = known || space == other;
    if (!known && space.empty())
        fail(VX_ERR_INPUT, "the NRRD header gives directions, but no space that they are of "
                           "(add 'space: left-posterior-superior', or what they are)");
    if (!known) fail(VX_ERR_INPUT, "NRRD space '%s' is not known", shown(space).c_str());
    vx_log_message(log, VX_LOG_WARNING,
                   "NRRD space '%s' does not say how the axes lie in the patient; taken as LPS",
                   space.empty() ? "(none)" : shown(space).c_str());
}

double unit_scale(const Fields &fields, const vx_log *log) {
    const std::string_view units = get(fields, "spaceunits");
    const std::string u = lower(units);
    if (u.empty() || u.find("mm") != std::string::npos || u.find("millimet") != std::string::npos)
        return 1;
    if (u.find("\"cm\"") != std::string::npos) return 10;
    if (u.find("\"m\"") != std::string::npos) return 1000;
    if (u.find("\"um\"") != std::string::npos) return 1e-3;
    vx_log_message(log, VX_LOG_WARNING, "NRRD space units %s are not known; taken as mm",
                   shown(units).c_str());
    return 1;
}

AxisVectors read_directions(const Fields &fields) {
    AxisVectors out;
    std::string_view text = get(fields, "spacedirections");
    if (text.empty()) return out;
    for (text = trim(text); !text.empty(); text = trim(text)) {
        out.emplace_back();
        if (take_vector(text, "space directions", out.back()) && out.back().size() != 3)
            fail(VX_ERR_INPUT, "NRRD space directions are %zu-dimensional (3 are needed)",
                 out.back().size());
    }
    return out;
}

void affine_from_directions(const Fields &fields, const Layout &layout,
                            const AxisVectors &directions, const vx_log *log, ImageHeader &h) {
    double sign[3];
    space_signs(fields, log, sign);
    const double scale = unit_scale(fields, log);
    std::vector<double> origin(3, 0.0);
    std::string_view text = get(fields, "spaceorigin");
    if (text.empty())
        vx_log_message(log, VX_LOG_WARNING, "NRRD space origin is missing; taken as (0,0,0)");
    else if (!take_vector(text, "space origin", origin) || origin.size() != 3)
        fail(VX_ERR_INPUT, "NRRD space origin is not an (x,y,z)");
    for (size_t r = 0; r < 3; r++) {
        for (size_t c = 0; c < 3; c++)
            h.geo.affine[r][c] = sign[r] * scale * directions[layout.axis[c]][r] + 0.0; /* no -0 */
        h.geo.affine[r][3] = sign[r] * scale * origin[r] + 0.0;
    }
}

/* Old files: only the distance of the samples along each axis is known. Read as ITK reads them:
 * axes along L, P, S, origin from "axis mins". */
void affine_from_spacings(const Fields &fields, const Layout &layout, const vx_log *log,
                          ImageHeader &h) {
    const auto spacings = words(get(fields, "spacings"));
    const auto mins = words(get(fields, "axismins"));
    const auto centers = words(get(fields, "centers"));
    if (spacings.empty())
        vx_log_message(log, VX_LOG_WARNING, "the NRRD header gives no spacing; taken as 1 mm");
    vx_log_message(log, VX_LOG_WARNING,
                   "the NRRD header gives no directions; its axes are taken as L, P, S");
    for (size_t i = 0; i < 3; i++) {
        const size_t a = layout.axis[i];
        double spacing = 1, first = 0;
        if (!spacings.empty()) {
            if (a >= spacings.size())
                fail(VX_ERR_INPUT, "NRRD spacings has %zu entries for %zu axes", spacings.size(),
                     layout.sizes.size());
            spacing = parse_double(spacings[a], "spacings");
            if (!(spacing > 0) || !std::isfinite(spacing))
                fail(VX_ERR_INPUT, "NRRD spacing %g along axis %zu (it must be above 0)", spacing,
                     a + 1);
        }
        if (a < mins.size()) {
            const double low = parse_double(mins[a], "axis mins");
            if (std::isfinite(low)) first = low;
            if (a < centers.size() && lower(centers[a]) == "cell") first += spacing / 2;
        }
        const double sign = i < 2 ? -1 : 1;
        h.geo.affine[i][i] = sign * spacing;
        h.geo.affine[i][3] = sign * first + 0.0;
    }
}

/* Where the voxels start; refuses skips that only ITK would understand. */
void find_data(const char *path, const Fields &fields, uint64_t header_end, bool blank_line,
               ImageHeader &h) {
    std::string_view file = get(fields, "datafile");
    if (file.empty()) {
        if (!blank_line)
            fail(VX_ERR_INPUT, "the NRRD header ends without voxels or a data file (cut short?)");
        h.data_path = path;
        h.data_offset = header_end;
    } else {
        const std::string name = lower(file);
        if (name.substr(0, 4) == "list" || name.find('%') != std::string::npos)
            fail(VX_ERR_INPUT, "a NRRD with several data files is not supported (save it as one)");
        h.data_path = data_beside(path, file);
        h.data_offset = 0;
    }
    const std::string_view lines = get(fields, "lineskip"), bytes = get(fields, "byteskip");
    const long long line_skip = lines.empty() ? 0 : parse_integer(lines, "line skip");
    const long long byte_skip = bytes.empty() ? 0 : parse_integer(bytes, "byte skip");
    if (line_skip != 0 || (byte_skip != 0 && h.encoding != Encoding::raw) || byte_skip < -1)
        fail(VX_ERR_INPUT, "NRRD line skip %lld, byte skip %lld are not supported", line_skip,
             byte_skip);
    const uint64_t size = file_size(h.data_path);
    if (byte_skip == -1) /* the voxels are the file's end */
        h.data_offset = size > h.data_bytes ? size - h.data_bytes : 0;
    else
        h.data_offset += static_cast<uint64_t>(byte_skip);
}

} // namespace

ImageHeader read_nrrd_header(const char *path, const vx_log *log) {
    HeaderText text(path);
    bool blank_line;
    const Fields fields = read_fields(text, blank_line);
    ImageHeader h{};
    h.type = parse_type(need(fields, "type"));
    h.encoding = parse_encoding(need(fields, "encoding"));
    if (scalar_bytes(h.type) > 1 && h.encoding != Encoding::text) {
        const std::string endian = lower(need(fields, "endian"));
        if (endian != "little" && endian != "big")
            fail(VX_ERR_INPUT, "NRRD endian '%s' is neither little nor big", shown(endian).c_str());
    }
    const AxisVectors directions = read_directions(fields);
    if (!directions.empty() && directions.size() != read_sizes(fields).size())
        fail(VX_ERR_INPUT, "NRRD space directions has %zu entries for %zu axes", directions.size(),
             read_sizes(fields).size());
    const Layout layout = find_axes(fields, directions);
    for (int i = 0; i < 3; i++) h.geo.dims[i] = layout.sizes[layout.axis[i]];
    h.geo.affine[3][3] = 1;
    if (directions.empty())
        affine_from_spacings(fields, layout, log, h);
    else
        affine_from_directions(fields, layout, directions, log, h);
    set_data_bytes(h);
    find_data(path, fields, text.offset(), blank_line, h);
    return h;
}

} // namespace vx_io
