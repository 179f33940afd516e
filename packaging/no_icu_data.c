/* Stands in for ICU's data library (31 MB) in the relocatable package. DCMTK links libxml2, libxml2
 * links ICU, and ICU's code wants one symbol of its data; VoxMamba calls none of the three's text
 * conversions. An empty table: ICU then reports "no data" for whatever it is asked.
 * Layout: DataHeader of ICU's udatamem.h (sizes, magic, UDataInfo) and a table of contents of 0. */
#include <stdint.h>

extern const struct icu_data ICU_DATA_SYMBOL;

struct icu_data {
    uint16_t header_size;
    uint8_t magic[2];
    uint16_t info_size, reserved;
    uint8_t big_endian, charset, bytes_per_uchar, reserved_byte;
    uint8_t format[4], format_version[4], data_version[4];
    uint8_t padding[8];
    uint32_t entries;
};

__attribute__((visibility("default"))) const struct icu_data ICU_DATA_SYMBOL = {
    .header_size = 32,
    .magic = {0xda, 0x27},
    .info_size = 20,
    .bytes_per_uchar = 2,
    .format = {'C', 'm', 'n', 'D'},
    .format_version = {1, 0, 0, 0},
    .entries = 0,
};
