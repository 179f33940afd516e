/* MetaImage headers (.mha, .mhd), after itk.org/Wiki/ITK/MetaIO/Documentation. */
#include <cmath>
#include <cstring>
#include <map>

#include "io/itk_header.h"

namespace vx_io {

namespace {

using Fields = std::map<std::string, std::string_view>;

/* MetaIO copies names into 255 bytes and values into 500 without asking. */
constexpr size_t max_name = 200, max_value = 480;

Fields read_fields(HeaderText &text) {
    Fields fields;
    std::string_view line;
    while (text.line(line)) {
        if (trim(line).empty()) continue;
        const size_t separator = line.find_first_of("=:");
        if (separator == std::string_view::npos)
            fail(VX_ERR_INPUT,
                 fields.empty() ? "not a MetaImage file (its first line is '%s')"
                                : "the MetaImage header's line '%s' has no '='",
                 shown(line).c_str());
        const std::string_view name = trim(line.substr(0, separator));
        const std::string_view value = trim(line.substr(separator + 1));
        if (name.empty() || name.size() > max_name || line.size() > max_value)
            fail(VX_ERR_INPUT, "the MetaImage header's line '%s' is too long or has no name",
                 shown(line).c_str());
        for (char c : line)
            if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f)
                fail(VX_ERR_INPUT, fields.empty() ? "not a MetaImage file"
                                                  : "the MetaImage header holds binary bytes");
        if (!fields.emplace(std::string(name), value).second && name != "Comment")
            fail(VX_ERR_INPUT, "the MetaImage header gives '%s' twice", shown(name).c_str());
        if (name == "ElementDataFile") return fields;
    }
    fail(VX_ERR_INPUT, "the MetaImage header has no ElementDataFile (cut short?)");
}

std::string_view get(const Fields &fields, std::initializer_list<const char *> synonyms) {
    for (const char *name : synonyms) {
        const auto it = fields.find(name);
        if (it != fields.end()) return it->second;
    }
    return {};
}

std::string_view need(const Fields &fields, const char *name) {
    const std::string_view v = get(fields, {name});
    if (v.empty()) fail(VX_ERR_INPUT, "the MetaImage header lacks '%s'", name);
    return v;
}

bool is_true(std::string_view v) {
    return !v.empty() && (v[0] == 'T' || v[0] == 't' || v[0] == '1');
}

Scalar parse_type(std::string_view name) {
    /* MET_LONG is 4 bytes in a file, whatever the machine. */
    static const struct {
        const char *name;
        Scalar type;
    } table[] = {
        {"MET_CHAR", Scalar::i8},        {"MET_UCHAR", Scalar::u8},  {"MET_SHORT", Scalar::i16},
        {"MET_USHORT", Scalar::u16},     {"MET_INT", Scalar::i32},   {"MET_UINT", Scalar::u32},
        {"MET_LONG", Scalar::i32},       {"MET_ULONG", Scalar::u32}, {"MET_LONG_LONG", Scalar::i64},
        {"MET_ULONG_LONG", Scalar::u64}, {"MET_FLOAT", Scalar::f32}, {"MET_DOUBLE", Scalar::f64},
    };
    for (const auto &row : table)
        if (name == row.name) return row.type;
    if (name.find("_ARRAY") != std::string_view::npos)
        fail(VX_ERR_INPUT, "MetaImage voxels of type '%s': vector images are not supported",
             shown(name).c_str());
    fail(VX_ERR_INPUT, "MetaImage voxels of type '%s' are not supported", shown(name).c_str());
}

/* count numbers of a field; false when the field is absent. */
bool numbers(std::string_view text, const char *field, size_t count, double *out) {
    if (text.empty()) return false;
    const auto list = words(text);
    if (list.size() != count)
        fail(VX_ERR_INPUT, "MetaImage %s has %zu numbers (%zu are needed)", field, list.size(),
             count);
    for (size_t i = 0; i < count; i++) out[i] = parse_double(list[i], field);
    return true;
}

void read_dims(const Fields &fields, ImageHeader &h) {
    const long long n = parse_integer(need(fields, "NDims"), "NDims");
    const auto sizes = words(need(fields, "DimSize"));
    if (n != 3) fail(VX_ERR_INPUT, "%lldD image: a 3D volume is needed", n);
    if (sizes.size() != 3)
        fail(VX_ERR_INPUT, "MetaImage DimSize has %zu entries (3 are needed)", sizes.size());
    for (size_t i = 0; i < 3; i++) {
        const long long size = parse_integer(sizes[i], "DimSize");
        /* MetaIO keeps sizes in an int. */
        if (size < 1 || size > 0x7fffffff)
            fail(VX_ERR_INPUT, "MetaImage DimSize holds %lld (each must be 1 to 2147483647)", size);
        h.geo.dims[i] = static_cast<size_t>(size);
    }
    const std::string_view channels = get(fields, {"ElementNumberOfChannels"});
    if (!channels.empty() && parse_integer(channels, "ElementNumberOfChannels") != 1)
        fail(VX_ERR_INPUT, "%s values a voxel: RGB and vector images are not supported",
             shown(channels).c_str());
}

double unit_scale(const Fields &fields, const vx_log *log) {
    const std::string u = lower(get(fields, {"DistanceUnits"}));
    if (u.empty() || u == "mm") return 1;
    if (u == "um") return 1e-3;
    if (u == "cm") return 10;
    vx_log_message(log, VX_LOG_WARNING, "MetaImage DistanceUnits '%s' is not known; taken as mm",
                   shown(u).c_str());
    return 1;
}

/* LPS in the file; row i of TransformMatrix is the direction of axis i. */
void read_geometry(const Fields &fields, const vx_log *log, ImageHeader &h) {
    double spacing[3] = {1, 1, 1}, offset[3] = {0, 0, 0};
    double rows[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    if (!numbers(get(fields, {"ElementSpacing", "ElementSize"}), "ElementSpacing", 3, spacing))
        vx_log_message(log, VX_LOG_WARNING, "the MetaImage header gives no spacing; taken as 1 mm");
    if (!numbers(get(fields, {"Offset", "Position", "Origin"}), "Offset", 3, offset))
        vx_log_message(log, VX_LOG_WARNING, "the MetaImage header gives no Offset; taken as 0 0 0");
    numbers(get(fields, {"TransformMatrix", "Rotation", "Orientation"}), "TransformMatrix", 9,
            rows);
    const double scale = unit_scale(fields, log);
    for (size_t i = 0; i < 3; i++)
        if (!(spacing[i] > 0) || !std::isfinite(spacing[i]))
            fail(VX_ERR_INPUT, "MetaImage spacing %g along axis %zu (it must be above 0)",
                 spacing[i], i + 1);
    for (size_t r = 0; r < 3; r++) {
        const double sign = r < 2 ? -scale : scale; /* + 0.0 below makes -0 a 0 */
        for (size_t c = 0; c < 3; c++)
            h.geo.affine[r][c] = sign * spacing[c] * rows[3 * c + r] + 0.0;
        h.geo.affine[r][3] = sign * offset[r] + 0.0;
    }
    h.geo.affine[3][3] = 1;
}

void refuse_intensity_function(const Fields &fields) {
    const std::string_view slope = get(fields, {"ElementToIntensityFunctionSlope"});
    const std::string_view offset = get(fields, {"ElementToIntensityFunctionOffset"});
    if ((!slope.empty() && parse_double(slope, "slope") != 1) ||
        (!offset.empty() && parse_double(offset, "offset") != 0))
        fail(VX_ERR_INPUT,
             "MetaImage ElementToIntensityFunction is not supported (store the final values)");
}

void find_data(const char *path, const Fields &fields, uint64_t header_end, ImageHeader &h) {
    const std::string_view file = need(fields, "ElementDataFile");
    const std::string name = lower(file);
    const bool local = name == "local";
    if (!local && (name.substr(0, 4) == "list" || name.find('%') != std::string::npos))
        fail(VX_ERR_INPUT, "a MetaImage with several data files is not supported (save it as one)");
    h.data_path = local ? path : data_beside(path, file);
    h.data_offset = local ? header_end : 0;
    const std::string_view packed = get(fields, {"CompressedDataSize"});
    if (h.encoding == Encoding::zlib) {
        /* Without it MetaIO takes the header for the stream's start and returns noise. */
        if (local && packed.empty())
            fail(VX_ERR_INPUT, "the MetaImage header lacks CompressedDataSize (save it again)");
        const long long n = packed.empty() ? 0 : parse_integer(packed, "CompressedDataSize");
        if (n < 0 || (n == 0 && !packed.empty()))
            fail(VX_ERR_INPUT, "MetaImage CompressedDataSize is %lld", n);
        h.packed_bytes = static_cast<uint64_t>(n);
    }
    const std::string_view skip_text = get(fields, {"HeaderSize"});
    const long long skip = skip_text.empty() ? 0 : parse_integer(skip_text, "HeaderSize");
    if (skip == 0) return;
    if (local || skip < -1 || h.encoding != Encoding::raw)
        fail(VX_ERR_INPUT, "MetaImage HeaderSize %lld is not supported here", skip);
    const uint64_t size = file_size(h.data_path);
    if (skip > 0)
        h.data_offset = static_cast<uint64_t>(skip);
    else /* -1: the voxels are the file's end */
        h.data_offset = size > h.data_bytes ? size - h.data_bytes : 0;
}

} // namespace

ImageHeader read_meta_header(const char *path, const vx_log *log) {
    HeaderText text(path);
    const Fields fields = read_fields(text);
    const std::string object = lower(get(fields, {"ObjectType"}));
    if (!object.empty() && object != "image")
        fail(VX_ERR_INPUT, "a MetaIO file of type '%s' is not an image", shown(object).c_str());
    ImageHeader h{};
    read_dims(fields, h);
    h.type = parse_type(need(fields, "ElementType"));
    const std::string_view binary = get(fields, {"BinaryData"});
    if (!binary.empty() && !is_true(binary))
        fail(VX_ERR_INPUT, "a MetaImage with voxels as text is not supported (save it as binary)");
    h.encoding = is_true(get(fields, {"CompressedData"})) ? Encoding::zlib : Encoding::raw;
    refuse_intensity_function(fields);
    read_geometry(fields, log, h);
    set_data_bytes(h);
    find_data(path, fields, text.offset(), h);
    return h;
}

} // namespace vx_io
