#include "io/dicom_scan.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>

namespace vx_io {

namespace fs = std::filesystem;

namespace {

bool ends_in_dcm(const std::string &path) {
    return vx_has_ending(path.c_str(), ".dcm") || vx_has_ending(path.c_str(), ".dicom") ||
           vx_has_ending(path.c_str(), ".ima");
}

/* By its first bytes. Throws Failure when it cannot be read. */
bool looks_like_dicom(const std::string &path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.c_str(), "rb"),
                                                                std::fclose);
    if (!file) fail(VX_ERR_INPUT, "cannot be opened: %s", std::strerror(errno));
    unsigned char head[132] = {};
    const size_t got = std::fread(head, 1, sizeof head, file.get());
    if (std::ferror(file.get())) fail(VX_ERR_INPUT, "cannot be read: %s", std::strerror(errno));
    return vx_dicom_begins(head, got);
}

/* What may be a DICOM file in a folder, by its name. Links are followed, and what they reach once
 * more (a link upwards, or to a file beside it) is there once; those to a folder in which the
 * searched one lies are not: other patients lie there. A name with nothing behind it stays: it may
 * have been a slice. */
class Walk {
  public:
    std::vector<std::string> paths;

    /* top: as typed. */
    Walk(const std::string &top, bool deep) {
        std::error_code error;
        real_top_ = fs::canonical(top, error);
        enter(top, top, deep);
    }

  private:
    /* folder: top or one below. */
    void enter(const std::string &top, const std::string &folder, bool deep) {
        if (holds_top(folder) || !is_new(folder)) return;
        std::error_code error;
        std::vector<std::string> names;
        for (fs::directory_iterator it(folder, error), end; !error && it != end;
             it.increment(error))
            if (it->path().filename().string()[0] != '.') names.push_back(it->path().string());
        if (error && folder == top)
            fail(VX_ERR_INPUT, "the folder cannot be read: %s", error.message().c_str());
        if (error)
            fail(VX_ERR_INPUT, "the folder %s in it cannot be read: %s",
                 quoted_name(folder).c_str(), error.message().c_str());
        std::sort(names.begin(), names.end()); /* the same result on every file system */
        for (const std::string &name : names) {
            switch (fs::status(name, error).type()) {
            case fs::file_type::directory:
                if (deep) enter(top, name, true);
                break;
            case fs::file_type::fifo:
            case fs::file_type::socket:
            case fs::file_type::character:
            case fs::file_type::block:
                break;
            default:
                if (is_new(name)) paths.push_back(name);
            }
        }
    }

    /* Whether top lies in it. */
    bool holds_top(const std::string &folder) {
        std::error_code error;
        const fs::path real = fs::canonical(folder, error);
        const auto ends =
            std::mismatch(real.begin(), real.end(), real_top_.begin(), real_top_.end());
        return !error && ends.first == real.end() && ends.second != real_top_.end();
    }

    /* By the path without links: not every file system has an inode number of its own for a file.
     */
    bool is_new(const std::string &path) {
        std::error_code error;
        const fs::path real = fs::canonical(path, error);
        return error || seen_.insert(real.string()).second;
    }

    fs::path real_top_;
    std::set<std::string> seen_;
};

void add_file(DicomWorker &worker, const std::string &path, DicomFolder &out) {
    DicomFile file;
    try {
        if (read_dicom_file(worker, path, file)) out.files.push_back(std::move(file));
    } catch (const Failure &failure) {
        if (failure.code != VX_ERR_INPUT) throw;
        out.damaged.push_back(quoted_name(path) + ": " + failure.text);
    }
}

} // namespace

bool read_dicom_file(DicomWorker &worker, const std::string &path, DicomFile &out) {
    if (looks_like_dicom(path)) return worker.parse(path, out);
    if (ends_in_dcm(path)) fail(VX_ERR_INPUT, "not a DICOM file (empty or cut short?)");
    return false;
}

DicomFolder scan_dicom_folder(DicomWorker &worker, const std::string &folder, bool deep) {
    const Walk walk(folder, deep);
    const std::vector<std::string> &paths = walk.paths;
    DicomFolder out;
    for (size_t i = 0; i < paths.size(); i++) {
        worker.progress("scan", static_cast<double>(i) / static_cast<double>(paths.size()));
        add_file(worker, paths[i], out);
    }
    return out;
}

} // namespace vx_io
