#include "io/dicom_library.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include <climits>
#include <mutex>
#include <string>

#include "io/cxx_boundary.h"

extern "C" {
#include "base/self.h"
}

namespace vx_io {

namespace {

/* DCMTK knows only the place that Debian's package puts its dictionary in. The relocatable package
 * brings its own, in share/voxmamba: seen from bin/ or lib/, and from lib/voxmamba/. */
void load_packaged_dictionary() {
    char folder[PATH_MAX];
    if (!vx_self_folder(folder)) return;
    for (const char *up : {"../", "../../"}) {
        const std::string dictionary = std::string(folder) + up + "share/voxmamba/dicom.dic";
        DcmDataDictionary &loaded = dcmDataDict.wrlock();
        const bool done = loaded.loadDictionary(dictionary.c_str(), OFFalse);
        dcmDataDict.wrunlock();
        if (done) return;
    }
}

} // namespace

void prepare_dicom() {
    static std::once_flag once;
    std::call_once(once, [] {
        OFLog::configure(OFLogger::OFF_LOG_LEVEL);
        if (!dcmDataDict.isDictionaryLoaded()) load_packaged_dictionary();
    });
    if (!dcmDataDict.isDictionaryLoaded())
        fail(VX_ERR_RESOURCE, "DCMTK's data dictionary is not loaded (install Debian's libdcmtk17 "
                              "or set DCMDICTPATH to its dicom.dic)");
}

} // namespace vx_io
