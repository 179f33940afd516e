/* NRRD and MetaImage volumes. The headers are read by itk_*_header.cpp; ITK decodes the voxels
 * through two ImageIO objects that are made here by name. No factory is registered and no
 * itk::Image is used: ITK's NIfTI reader must not come in (its symbols are libnifti2's). */
#include "io/itk_reader.h"

#include <itkMetaImageIO.h>
#include <itkNrrdImageIO.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <type_traits>

#include "io/itk_header.h"

namespace vx_io {

namespace {

const vx_log *log_of(const vx_read_options *options) { return options ? options->log : nullptr; }

/* By the name, else by the first bytes: any name that io.c lets through. */
vx_format format_of(const char *path) {
    const vx_format named = vx_format_by_path(path);
    if (named == VX_FORMAT_META || named == VX_FORMAT_NRRD || named == VX_FORMAT_SEG_NRRD)
        return named;
    char head[7] = {};
    std::ifstream(path, std::ios::binary).read(head, sizeof head);
    return std::memcmp(head, "NRRD000", sizeof head) == 0 ? VX_FORMAT_NRRD : VX_FORMAT_META;
}

bool is_meta(const char *path) { return format_of(path) == VX_FORMAT_META; }

ImageHeader read_header(const char *path, const vx_log *log) {
    ImageHeader header = is_meta(path) ? read_meta_header(path, log) : read_nrrd_header(path, log);
    vx_error err;
    check(vx_geometry_check(&header.geo, &err), err);
    return header;
}

bool same_scalar(Scalar type, itk::ImageIOBase &io) {
    using Type = itk::IOComponentEnum;
    if (io.GetComponentSize() != scalar_bytes(type)) return false;
    switch (io.GetComponentType()) {
    case Type::FLOAT:
    case Type::DOUBLE:
        return type == Scalar::f32 || type == Scalar::f64;
    case Type::UCHAR:
    case Type::USHORT:
    case Type::UINT:
    case Type::ULONG:
    case Type::ULONGLONG:
        return type == Scalar::u8 || type == Scalar::u16 || type == Scalar::u32 ||
               type == Scalar::u64;
    default:
        return type == Scalar::i8 || type == Scalar::i16 || type == Scalar::i32 ||
               type == Scalar::i64;
    }
}

/* out: header.data_bytes bytes, native byte order. */
void decode_by_itk(const char *path, const ImageHeader &header, void *out) {
    itk::Object::SetGlobalWarningDisplay(false); /* it would print on stderr */
    itk::ImageIOBase::Pointer io;
    if (is_meta(path))
        io = itk::MetaImageIO::New();
    else
        io = itk::NrrdImageIO::New();
    io->SetFileName(path);
    io->ReadImageInformation();
    itk::ImageIORegion region(io->GetNumberOfDimensions());
    for (unsigned i = 0; i < io->GetNumberOfDimensions(); i++)
        region.SetSize(i, io->GetDimensions(i));
    io->SetIORegion(region);
    const auto bytes = static_cast<unsigned long long>(io->GetImageSizeInBytes());
    if (!same_scalar(header.type, *io) || bytes != header.data_bytes)
        fail(VX_ERR_INPUT, "the header is ambiguous (ITK reads %llu bytes from it, we %zu)", bytes,
             header.data_bytes);
    io->Read(out);
}

/* What ITK says names its own source lines and the file's whole path: nobody is helped. */
void decode(const char *path, const ImageHeader &header, void *out) {
    try {
        decode_by_itk(path, header, out);
    } catch (const itk::ExceptionObject &) {
        fail(VX_ERR_INPUT, "the voxels cannot be decoded: ITK does not read a header like this one "
                           "(save the file again, in 3D, as raw or gzip)");
    }
}

/* Calls f with the C type of the voxels as a zero value. */
template <typename F> void with_type(Scalar type, F &&f) {
    switch (type) {
    case Scalar::i8:
        return f(int8_t{});
    case Scalar::u8:
        return f(uint8_t{});
    case Scalar::i16:
        return f(int16_t{});
    case Scalar::u16:
        return f(uint16_t{});
    case Scalar::i32:
        return f(int32_t{});
    case Scalar::u32:
        return f(uint32_t{});
    case Scalar::i64:
        return f(int64_t{});
    case Scalar::u64:
        return f(uint64_t{});
    case Scalar::f32:
        return f(float{});
    case Scalar::f64:
        return f(double{});
    }
}

struct NotFinite {
    size_t count = 0, first = 0;
};

/* raw may be the tail of out: element i is loaded before out[i] is stored, and out[i] ends before
 * element i + 1 begins. Returns the voxels that are not finite as float32. */
template <typename T> NotFinite widen(const unsigned char *raw, size_t n, float *out) {
    NotFinite bad;
    for (size_t i = 0; i < n; i++) {
        T v;
        std::memcpy(&v, raw + i * sizeof(T), sizeof(T));
        const float f = static_cast<float>(v);
        if (std::is_floating_point<T>::value && !std::isfinite(f) && bad.count++ == 0)
            bad.first = i;
        std::memcpy(out + i, &f, sizeof f);
    }
    return bad;
}

/* "(x, y, z)" of voxel i. */
std::string index_text(const vx_geometry &geo, size_t i) {
    const size_t x = i % geo.dims[0], row = i / geo.dims[0];
    return "(" + std::to_string(x) + ", " + std::to_string(row % geo.dims[1]) + ", " +
           std::to_string(row / geo.dims[1]) + ")";
}

/* Up to 4 bytes a voxel fit into the volume's own memory. */
size_t bytes_beside_volume(const ImageHeader &header) {
    return scalar_bytes(header.type) > 4 ? header.data_bytes : 0;
}

void read_volume(const char *path, const vx_read_options *options, VolumeOwner &volume) {
    const vx_log *log = log_of(options);
    const ImageHeader header = read_header(path, log);
    check_size(header);
    vx_error err;
    const size_t n = vx_voxels(&header.geo), size = scalar_bytes(header.type);
    const size_t own_bytes = bytes_beside_volume(header);
    check(vx_io_admit(options, &header.geo, own_bytes, &err), err);
    check_data(header, log);
    vx_warn_sheared(vx_shear(&header.geo), log);
    check(vx_volume_create(&header.geo, 1, &volume.p, &err), err);
    float *out = volume.p->data;
    /* Without own bytes the volume's tail is decoded and widened to the front, so that no second
     * copy is held. */
    std::vector<unsigned char> own(own_bytes);
    unsigned char *raw =
        size > 4 ? own.data() : reinterpret_cast<unsigned char *>(out) + (4 - size) * n;
    decode(path, header, raw);
    NotFinite bad;
    with_type(header.type, [&](auto zero) { bad = widen<decltype(zero)>(raw, n, out); });
    if (bad.count > 0)
        fail(VX_ERR_INPUT,
             "has %zu voxels that are NaN or infinite, the first at %s (repair the image)",
             bad.count, index_text(header.geo, bad.first).c_str());
}

/* Largest label; throws unless all are whole numbers 0..65535. */
template <typename T> unsigned check_labels(const unsigned char *raw, const vx_geometry &geo) {
    const size_t n = vx_voxels(&geo);
    unsigned largest = 0;
    for (size_t i = 0; i < n; i++) {
        T v;
        std::memcpy(&v, raw + i * sizeof(T), sizeof(T));
        const double d = static_cast<double>(v);
        if (!(d >= 0 && d <= 65535) || d != std::floor(d))
            fail(VX_ERR_INPUT,
                 "is not a label map: voxel %s is %g (whole numbers from 0 to 65535 are needed)",
                 index_text(geo, i).c_str(), d);
        if (d > largest) largest = static_cast<unsigned>(d);
    }
    return largest;
}

void read_labels(const char *path, const vx_read_options *options, MaskOwner &mask) {
    const vx_log *log = log_of(options);
    const ImageHeader header = read_header(path, log);
    check_size(header);
    vx_error err;
    const size_t n = vx_voxels(&header.geo);
    const uint64_t second_byte = scalar_bytes(header.type) > 1 ? n : 0;
    check(vx_io_admit(options, &header.geo, header.data_bytes + second_byte, &err), err);
    check_data(header, log);
    std::vector<unsigned char> raw(header.data_bytes);
    decode(path, header, raw.data());
    with_type(header.type, [&](auto zero) {
        using T = decltype(zero);
        const unsigned largest = check_labels<T>(raw.data(), header.geo);
        check(vx_mask_create(&header.geo, largest > 255 ? 2 : 1, &mask.p, &err), err);
        for (size_t i = 0; i < n; i++) {
            T v;
            std::memcpy(&v, raw.data() + i * sizeof(T), sizeof(T));
            vx_mask_set(mask.p, i, static_cast<unsigned>(v));
        }
    });
}

} // namespace

} // namespace vx_io

using namespace vx_io;

extern "C" {

static vx_status itk_info(const char *path, const vx_read_options *options, vx_image_info *out,
                          vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        const ImageHeader header = read_header(path, log_of(options));
        *out = vx_image_info{};
        out->format = format_of(path);
        out->geo = header.geo;
        out->channels = 1;
        std::strncpy(out->dtype, scalar_name(header.type), sizeof out->dtype - 1);
        out->beside = bytes_beside_volume(header);
    });
}

static vx_status itk_read(const char *path, const vx_read_options *options, vx_volume **out,
                          vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        VolumeOwner volume;
        read_volume(path, options, volume);
        *out = volume.release();
    });
}

static vx_status itk_read_mask(const char *path, const vx_read_options *options, vx_mask **out,
                               vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        MaskOwner mask;
        read_labels(path, options, mask);
        *out = mask.release();
    });
}

static vx_status itk_write_mask(const char *path, const vx_mask *mask,
                                const vx_write_options *options, vx_error *err) {
    return guarded(VX_ERR_OUTPUT, err, [&] { write_itk_mask(path, mask, options); });
}

static vx_status itk_files(const char *path, const vx_read_options *, vx_file_list *out,
                           vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        const ImageHeader header = read_header(path, nullptr);
        check_size(header);
        vx_error e;
        check(vx_file_list_add(out, path, &e), e);
        if (header.data_path != path) check(vx_file_list_add(out, header.data_path.c_str(), &e), e);
    });
}

const vx_format_ops vx_itk_ops = {itk_info,       itk_read,  itk_read_mask,
                                  itk_write_mask, itk_files, nullptr};
}
