/* Attributes of a DICOM data set or item, read strictly: what is there but malformed is a Failure,
 * what is missing is not. Only the item itself is looked at, not the sequences in it. Helper
 * process only. */
#ifndef VX_IO_DICOM_ATTRIBUTES_H
#define VX_IO_DICOM_ATTRIBUTES_H

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include <string>

#include "io/cxx_boundary.h"

namespace vx_io {

class Attributes {
  public:
    explicit Attributes(DcmItem &item) : d_(item) {}

    bool has(const DcmTagKey &tag);
    /* All values with '\' between them, printable ASCII ('?' for other bytes), at most limit bytes;
     * "" when missing. */
    std::string text(const DcmTagKey &tag, size_t limit = 80);
    /* A UID without its padding; "" when missing. Not all archives keep to digits and dots, but
     * there is no room for anything that cannot be printed. */
    std::string uid(const DcmTagKey &tag, const char *name);
    /* count decimal strings (VR DS); false when the attribute is missing or empty. */
    bool numbers(const DcmTagKey &tag, const char *name, unsigned long count, double *out);
    /* One 16-bit number (VR US). */
    unsigned whole(const DcmTagKey &tag, const char *name, unsigned missing);
    /* One integer string (VR IS). */
    long integer(const DcmTagKey &tag, const char *name, long missing);
    /* The one item of a functional group, or NULL. */
    DcmItem *group(const DcmTagKey &sequence);

  private:
    DcmElement *first_value(const DcmTagKey &tag, DcmEVR vr, const char *name);
    DcmItem &d_;
};

/* one_line() with '?' for every byte beyond ASCII. */
std::string ascii_line(const std::string &text, size_t limit);

/* At most 255 bytes. */
std::string printed(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace vx_io

#endif
