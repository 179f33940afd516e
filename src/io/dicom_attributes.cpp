#include "io/dicom_attributes.h"

#include <charconv>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace vx_io {

namespace {

/* The value between its padding, without the '+' that from_chars does not take. */
std::string_view bare(const OFString &value) {
    std::string_view text(value.c_str(), value.length());
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == 0))
        text.remove_suffix(1);
    if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
    return text;
}

/* The whole value must be the number: DCMTK itself takes "0.48x" for 0.48. */
template <typename T> bool parse_whole(const OFString &value, T &out) {
    const std::string_view text = bare(value);
    const auto end = std::from_chars(text.data(), text.data() + text.size(), out);
    return !text.empty() && end.ec == std::errc() && end.ptr == text.data() + text.size();
}

} // namespace

std::string ascii_line(const std::string &text, size_t limit) {
    std::string out = one_line(text, limit);
    for (char &c : out)
        if (static_cast<unsigned char>(c) >= 0x80) c = '?';
    return out;
}

std::string printed(const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    std::vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

bool Attributes::has(const DcmTagKey &tag) { return d_.tagExistsWithValue(tag, OFFalse); }

std::string Attributes::text(const DcmTagKey &tag, size_t limit) {
    OFString value;
    if (d_.findAndGetOFStringArray(tag, value, OFFalse).bad()) return "";
    return ascii_line(std::string(value.c_str(), value.length()), limit);
}

std::string Attributes::uid(const DcmTagKey &tag, const char *name) {
    OFString value;
    if (d_.findAndGetOFString(tag, value).bad()) return "";
    const std::string_view text = bare(value);
    for (char c : text)
        if (c <= ' ' || c > '~') fail(VX_ERR_INPUT, "%s is not a UID", name);
    return std::string(text.substr(0, 80));
}

DcmElement *Attributes::first_value(const DcmTagKey &tag, DcmEVR vr, const char *name) {
    DcmElement *element = nullptr;
    if (!has(tag) || d_.findAndGetElement(tag, element, OFFalse).bad() || !element) return nullptr;
    if (element->ident() != vr) fail(VX_ERR_INPUT, "%s is not a number", name);
    return element;
}

bool Attributes::numbers(const DcmTagKey &tag, const char *name, unsigned long count, double *out) {
    DcmElement *element = first_value(tag, EVR_DS, name);
    if (!element) return false;
    if (element->getVM() != count)
        fail(VX_ERR_INPUT, "%s has %lu values (%lu are needed)", name, element->getVM(), count);
    for (unsigned long i = 0; i < count; i++) {
        OFString value;
        if (element->getOFString(value, i).bad() || !parse_whole(value, out[i]) ||
            !std::isfinite(out[i]))
            fail(VX_ERR_INPUT, "%s is not a number", name);
    }
    return true;
}

unsigned Attributes::whole(const DcmTagKey &tag, const char *name, unsigned missing) {
    DcmElement *element = first_value(tag, EVR_US, name);
    if (!element) return missing;
    Uint16 v = 0;
    if (element->getVM() != 1 || element->getUint16(v, 0).bad())
        fail(VX_ERR_INPUT, "%s is not one number", name);
    return v;
}

long Attributes::integer(const DcmTagKey &tag, const char *name, long missing) {
    DcmElement *element = first_value(tag, EVR_IS, name);
    if (!element) return missing;
    OFString value;
    int v = 0;
    if (element->getVM() != 1 || element->getOFString(value, 0).bad() || !parse_whole(value, v))
        fail(VX_ERR_INPUT, "%s is not a whole number", name);
    return v;
}

DcmItem *Attributes::group(const DcmTagKey &sequence) {
    DcmSequenceOfItems *items = nullptr;
    if (d_.findAndGetSequence(sequence, items, OFFalse).bad() || !items || items->card() == 0)
        return nullptr;
    if (items->card() != 1)
        fail(VX_ERR_INPUT, "a functional group has %lu items (1 is needed)", items->card());
    return items->getItem(0);
}

} // namespace vx_io
