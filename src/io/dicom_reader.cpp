/* A DICOM folder, or the series that one file belongs to, as a volume. */
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "io/dicom_series.h"
#include "io/dicom_source.h"

namespace vx_io {

namespace {

const vx_log *log_of(const vx_read_options *options) { return options ? options->log : nullptr; }

std::vector<DicomSeries> folder_series(const std::string &folder, bool deep, const vx_log *log) {
    return group_series(scan_dicom_folder(folder, deep, log));
}

/* A file stands for its whole series in the same folder. */
DicomSeries series_of(const char *path, const vx_read_options *options) {
    prepare_dicom();
    const vx_log *log = log_of(options);
    struct stat st;
    if (stat(path, &st) != 0) fail(VX_ERR_INPUT, "cannot be opened: %s", std::strerror(errno));
    const char *wanted = options ? options->series : nullptr;
    std::string folder(path), uid;
    const bool is_folder = S_ISDIR(st.st_mode);
    if (!is_folder) {
        DicomFile file;
        if (!parse_dicom_file(path, file)) fail(VX_ERR_INPUT, "not a DICOM image");
        /* One file that is complete in itself, or that cannot be put with others. */
        if (file.kind != DicomKind::slice || file.series_uid.empty()) {
            DicomFolder alone;
            alone.files.push_back(std::move(file));
            return std::move(group_series(std::move(alone)).front());
        }
        uid = file.series_uid;
        if (!wanted) wanted = uid.c_str();
        const size_t slash = folder.rfind('/');
        folder = slash == std::string::npos ? "." : folder.substr(0, slash + 1);
    }
    std::vector<DicomSeries> series = folder_series(folder, is_folder, log);
    return std::move(choose_series(series, wanted));
}

const char *dtype_of(const DicomFile &f) {
    switch (f.bits_allocated) {
    case 8:
        return f.is_signed ? "int8" : "uint8";
    case 16:
        return f.is_signed ? "int16" : "uint16";
    case 32:
        return f.is_signed ? "int32" : "uint32";
    default:
        return "?";
    }
}

template <size_t n> void copy_text(char (&to)[n], const std::string &from) {
    std::strncpy(to, one_line(from, n - 1).c_str(), n - 1);
    to[n - 1] = 0;
}

vx_image_info info_of(const DicomSeries &s) {
    vx_image_info info{};
    info.format = VX_FORMAT_DICOM;
    info.geo = s.geo;
    info.channels = 1;
    copy_text(info.dtype, dtype_of(s.files.front()));
    return info;
}

vx_series public_series(const DicomSeries &s) {
    const DicomFile &f = s.files.front();
    vx_series out{};
    copy_text(out.uid, f.series_uid);
    copy_text(out.description, f.description);
    copy_text(out.modality, f.modality);
    out.number = f.series_number;
    out.files = s.files.size();
    out.info = info_of(s);
    for (const auto &problem : s.problems) {
        if (out.problem_count == sizeof out.problems / sizeof out.problems[0]) break;
        vx_series_problem &to = out.problems[out.problem_count++];
        copy_text(to.code, problem.code);
        copy_text(to.message, problem.message);
    }
    return out;
}

void destroy_source(vx_source *source) { delete reinterpret_cast<DicomSource *>(source); }

vx_source *make_source(const DicomSeries &s) {
    auto source = std::make_unique<DicomSource>();
    source->base = vx_source{1, VX_FORMAT_DICOM, destroy_source};
    source->geo = s.geo;
    const DicomFile &first = s.files.front();
    source->study_uid = first.study_uid;
    source->series_uid = first.series_uid;
    source->frame_of_reference = first.frame_of_reference;
    for (const DicomFile &f : s.files)
        source->slices.push_back({f.path, f.sop_class, f.sop_instance});
    return &source.release()->base;
}

void read_volume(const DicomSeries &s, const vx_log *log, VolumeOwner &volume) {
    refuse_problems(s);
    vx_error err;
    check(vx_geometry_check(&s.geo, &err), err);
    check(vx_volume_create(&s.geo, 1, &volume.p, &err), err);
    const size_t slice = s.geo.dims[0] * s.geo.dims[1];
    for (size_t z = 0; z < s.files.size(); z++) {
        if (vx_log_progress(log, "read",
                            static_cast<double>(z) / static_cast<double>(s.files.size())))
            fail(VX_ERR_CANCELLED, "cancelled");
        try {
            read_slice(s.files[z], volume.p->data + z * slice);
        } catch (const Failure &failure) {
            fail(failure.code, "slice %zu of %zu: %s", z + 1, s.files.size(), failure.text.c_str());
        }
    }
    volume.p->source = make_source(s);
}

} // namespace

} // namespace vx_io

using namespace vx_io;

extern "C" {

static vx_status dicom_info(const char *path, const vx_read_options *options, vx_image_info *out,
                            vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        const DicomSeries series = series_of(path, options);
        refuse_problems(series);
        *out = info_of(series);
    });
}

static vx_status dicom_read(const char *path, const vx_read_options *options, vx_volume **out,
                            vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        VolumeOwner volume;
        read_volume(series_of(path, options), log_of(options), volume);
        *out = volume.release();
    });
}

static vx_status dicom_files(const char *path, const vx_read_options *options, vx_file_list *out,
                             vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        const DicomSeries series = series_of(path, options);
        refuse_problems(series);
        vx_error e;
        for (const DicomFile &f : series.files) check(vx_file_list_add(out, f.path.c_str(), &e), e);
    });
}

const vx_format_ops vx_dicom_ops = {dicom_info, dicom_read, nullptr, nullptr, dicom_files};

vx_status vx_dicom_series(const char *folder, const vx_read_options *options, vx_series **out,
                          size_t *count, vx_error *err) {
    *out = nullptr;
    *count = 0;
    return guarded(VX_ERR_INPUT, err, [&] {
        prepare_dicom();
        const std::vector<DicomSeries> series = folder_series(folder, true, log_of(options));
        if (series.empty()) fail(VX_ERR_INPUT, "no DICOM image here");
        auto *list = static_cast<vx_series *>(vx_alloc_zero(series.size(), sizeof(vx_series)));
        if (!list) throw std::bad_alloc();
        for (size_t i = 0; i < series.size(); i++) list[i] = public_series(series[i]);
        *out = list;
        *count = series.size();
    });
}
}
