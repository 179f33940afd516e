/* A DICOM folder, or the series that one file belongs to, as a volume. */
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "io/dicom_series.h"
#include "io/dicom_source.h"

namespace vx_io {

namespace {

const vx_log *log_of(const vx_read_options *options) { return options ? options->log : nullptr; }
bool tolerates(const vx_read_options *options) { return options && options->tolerate_geometry; }

std::vector<DicomSeries> folder_series(DicomWorker &worker, const std::string &folder, bool deep) {
    return group_series(scan_dicom_folder(worker, folder, deep));
}

/* A file stands for its whole series in the same folder. */
DicomSeries series_of(DicomWorker &worker, const char *path, const vx_read_options *options) {
    struct stat st;
    if (stat(path, &st) != 0) fail(VX_ERR_INPUT, "cannot be opened: %s", std::strerror(errno));
    const char *wanted = options ? options->series : nullptr;
    std::string folder(path), uid;
    const bool is_folder = S_ISDIR(st.st_mode);
    if (!is_folder) {
        DicomFile file;
        if (!read_dicom_file(worker, path, file)) fail(VX_ERR_INPUT, "not a DICOM image");
        uid = file.series_uid;
        /* One file that is complete in itself, or that cannot be put with others. */
        if (file.kind != DicomKind::slice || uid.empty()) {
            const bool is_volume = file.kind == DicomKind::multiframe;
            DicomFolder alone;
            alone.files.push_back(std::move(file));
            std::vector<DicomSeries> series = group_series(std::move(alone));
            return std::move(is_volume ? choose_series(series, wanted) : series.front());
        }
        if (!wanted) wanted = uid.c_str();
        const size_t slash = folder.rfind('/');
        folder = slash == std::string::npos ? "." : folder.substr(0, slash + 1);
    }
    std::vector<DicomSeries> series = folder_series(worker, folder, is_folder);
    return std::move(choose_series(series, wanted));
}

/* The series that can be read; on a straight grid where that was asked for and is needed. */
struct ReadySeries {
    DicomSeries series;
    bool straightened = false;
    vx_geometry geo{};

    ReadySeries(DicomWorker &worker, const char *path, const vx_read_options *options)
        : series(series_of(worker, path, options)) {
        refuse_problems(series, tolerates(options));
        straightened = !series.problems.empty();
        geo = straightened ? straight_grid(series) : series.geo;
        vx_error err;
        check(vx_geometry_check(&geo, &err), err);
    }
};

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

/* The most that the helper takes: itself, a frame as it is stored, unpacked and sent, and all
 * pixels of a file that may be deflated, which is one that is smaller than they are. */
uint64_t helper_bytes(const DicomSeries &s) {
    constexpr uint64_t program = 32000000;
    uint64_t most = 0;
    for (const DicomFile &f : s.files) {
        const uint64_t frame = frame_bytes(f), pixels = frame * f.slices.size();
        struct stat st;
        const bool packed =
            stat(f.path.c_str(), &st) != 0 || static_cast<uint64_t>(st.st_size) < pixels;
        most = std::max(most, 4 * frame + (packed ? pixels : 0));
    }
    return program + most;
}

vx_image_info info_of(const DicomSeries &s, const vx_geometry &geo) {
    vx_image_info info{};
    info.format = VX_FORMAT_DICOM;
    info.geo = geo;
    info.channels = 1;
    copy_text(info.dtype, dtype_of(s.files.front()));
    info.beside = helper_bytes(s);
    return info;
}

vx_series public_series(const DicomSeries &s) {
    const DicomFile &f = s.files.front();
    vx_series out{};
    copy_text(out.uid, f.series_uid);
    copy_text(out.description, f.description);
    copy_text(out.modality, f.modality);
    out.number = f.series_number;
    out.part = s.part;
    copy_text(out.contents, s.contents);
    out.files = s.files.size();
    out.info = info_of(s, s.geo);
    for (const auto &problem : s.problems) {
        if (out.problem_count == sizeof out.problems / sizeof out.problems[0]) break;
        vx_series_problem &to = out.problems[out.problem_count++];
        copy_text(to.code, problem.code);
        copy_text(to.message, problem.message);
    }
    return out;
}

void destroy_source(vx_source *source) { delete reinterpret_cast<DicomSource *>(source); }

vx_source *make_source(const ReadySeries &ready) {
    const DicomSeries &s = ready.series;
    auto source = std::make_unique<DicomSource>();
    source->base = vx_source{1, VX_FORMAT_DICOM, destroy_source};
    source->geo = ready.geo;
    source->straightened = ready.straightened;
    const DicomFile &first = s.files.front();
    source->study_uid = first.study_uid;
    source->series_uid = first.series_uid;
    source->frame_of_reference = first.frame_of_reference;
    for (const DicomSlice &slice : s.slices) {
        const DicomFile &f = s.file_of(slice);
        const uint32_t frame = f.kind == DicomKind::multiframe ? slice.frame + 1 : 0;
        source->slices.push_back({f.path, f.sop_class, f.sop_instance, frame});
    }
    return &source.release()->base;
}

/* Slices as they are, behind each other. */
void read_slices(DicomWorker &worker, const DicomSeries &s, float *out) {
    const size_t slice = s.geo.dims[0] * s.geo.dims[1], depth = s.slices.size();
    for (size_t z = 0; z < depth; z++) {
        worker.progress("read", static_cast<double>(z) / static_cast<double>(depth));
        try {
            read_slice(worker, s.file_of(s.slices[z]), s.slices[z], out + z * slice);
        } catch (const Failure &failure) {
            if (failure.code != VX_ERR_INPUT) throw;
            fail(failure.code, "slice %zu of %zu: %s", z + 1, depth, failure.text.c_str());
        }
    }
}

void warn_straightened(const ReadySeries &ready, const vx_log *log) {
    std::string reasons;
    for (const auto &problem : ready.series.problems)
        reasons += (reasons.empty() ? "" : "; ") + problem.message;
    double spacing[3];
    vx_spacing(&ready.geo, spacing);
    vx_log_message(log, VX_LOG_WARNING,
                   "resampled to a straight, even grid of %zu x %zu x %zu voxels, slices %.3f mm "
                   "apart, because of: %s",
                   ready.geo.dims[0], ready.geo.dims[1], ready.geo.dims[2], spacing[2],
                   reasons.c_str());
}

void read_volume(const char *path, const vx_read_options *options, VolumeOwner &volume) {
    DicomWorker worker(log_of(options));
    const ReadySeries ready(worker, path, options);
    vx_error err;
    check(vx_io_admit(options, &ready.geo, helper_bytes(ready.series), &err), err);
    check(vx_volume_create(&ready.geo, 1, &volume.p, &err), err);
    if (ready.straightened) {
        read_straightened(worker, ready.series, ready.geo, volume.p->data);
        warn_straightened(ready, log_of(options));
    } else {
        read_slices(worker, ready.series, volume.p->data);
    }
    volume.p->source = make_source(ready);
}

} // namespace

} // namespace vx_io

using namespace vx_io;

extern "C" {

static vx_status dicom_info(const char *path, const vx_read_options *options, vx_image_info *out,
                            vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        DicomWorker worker(log_of(options));
        const ReadySeries ready(worker, path, options);
        *out = info_of(ready.series, ready.geo);
    });
}

static vx_status dicom_read(const char *path, const vx_read_options *options, vx_volume **out,
                            vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        VolumeOwner volume;
        read_volume(path, options, volume);
        *out = volume.release();
    });
}

static vx_status dicom_files(const char *path, const vx_read_options *options, vx_file_list *out,
                             vx_error *err) {
    return guarded(VX_ERR_INPUT, err, [&] {
        DicomWorker worker(log_of(options));
        const ReadySeries ready(worker, path, options);
        const std::string *last = nullptr;
        vx_error e;
        for (const DicomSlice &slice : ready.series.slices) {
            const std::string &file = ready.series.file_of(slice).path;
            if (!last || *last != file) check(vx_file_list_add(out, file.c_str(), &e), e);
            last = &file;
        }
    });
}

const vx_format_ops vx_dicom_ops = {dicom_info, dicom_read, nullptr, nullptr, dicom_files, nullptr};

vx_status vx_dicom_series(const char *folder, const vx_read_options *options, vx_series **out,
                          size_t *count, vx_error *err) {
    *out = nullptr;
    *count = 0;
    return guarded(VX_ERR_INPUT, err, [&] {
        DicomWorker worker(log_of(options));
        std::vector<DicomSeries> series = folder_series(worker, folder, true);
        keep_named(series, options ? options->series : nullptr);
        auto *list = static_cast<vx_series *>(vx_alloc_zero(series.size(), sizeof(vx_series)));
        if (!list) throw std::bad_alloc();
        for (size_t i = 0; i < series.size(); i++) list[i] = public_series(series[i]);
        *out = list;
        *count = series.size();
    });
}

void vx_dicom_studies(const vx_file_list *files, char (*uids)[80]) {
    DicomWorker worker(nullptr);
    for (size_t i = 0; i < files->count; i++) {
        vx_error ignored;
        guarded(VX_ERR_INPUT, &ignored, [&] {
            DicomFile file;
            if (read_dicom_file(worker, files->paths[i], file)) copy_text(uids[i], file.study_uid);
        });
    }
}
}
