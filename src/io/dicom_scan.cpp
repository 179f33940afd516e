#include "io/dicom_scan.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace vx_io {

namespace {

bool ends_in_dcm(const std::string &path) {
    std::string ext = std::filesystem::path(path).extension().string();
    std::transform(ext.begin(), ext.end(), ext.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return ext == ".dcm" || ext == ".dicom" || ext == ".ima";
}

/* "DICM" behind the preamble, or a file without one that begins with group 0002 or 0008. */
bool looks_like_dicom(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    char head[132] = {};
    file.read(head, sizeof head);
    const auto got = file.gcount();
    if (got >= 132 && std::memcmp(head + 128, "DICM", 4) == 0) return true;
    const bool little = (head[0] == 2 || head[0] == 8) && head[1] == 0 && head[3] == 0;
    const bool big = head[0] == 0 && head[1] == 8 && head[2] == 0;
    return got >= 16 && (little || big);
}

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
    namespace fs = std::filesystem;
    std::vector<std::string> paths;
    std::error_code error;
    const auto collect = [&](const fs::directory_entry &entry) {
        std::error_code ignored;
        const std::string name = entry.path().filename().string();
        if (entry.is_regular_file(ignored) && name[0] != '.')
            paths.push_back(entry.path().string());
    };
    if (deep)
        for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
             it.increment(error))
            collect(*it);
    else
        for (fs::directory_iterator it(folder, error), end; !error && it != end;
             it.increment(error))
            collect(*it);
    if (error) fail(VX_ERR_INPUT, "the folder cannot be read: %s", error.message().c_str());
    std::sort(paths.begin(), paths.end()); /* the same result on every file system */
    DicomFolder out;
    for (size_t i = 0; i < paths.size(); i++) {
        worker.progress("scan", static_cast<double>(i) / static_cast<double>(paths.size()));
        add_file(worker, paths[i], out);
    }
    return out;
}

} // namespace vx_io
