/* The helper process: whatever becomes of it is an error of the file, within bounded time, and no
 * process is left. Its answers are believed only as far as they can be checked. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>

#include "io/dicom_worker.h"
#include "scratch.h"

using namespace vx_io;

namespace {

/* No child is left, not even a zombie (cmocka has none of its own). */
int remove_folder_and_look(void **state) {
    const bool clean = remove_folder(state) == 0;
    return clean && waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD ? 0 : 1;
}

std::string write_file(const char *name, const std::string &bytes) {
    const std::string path = folder + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

/* Explicit VR little endian; value of even length. */
std::string element(unsigned group, unsigned number, const char *vr, const std::string &value) {
    std::string out;
    const auto u16 = [&](size_t v) {
        out += static_cast<char>(v & 255);
        out += static_cast<char>(v >> 8 & 255);
    };
    u16(group), u16(number);
    out += vr;
    const bool is_long = std::strcmp(vr, "SQ") == 0 || std::strcmp(vr, "OW") == 0;
    if (is_long) u16(0);
    u16(value.size() & 0xffff);
    if (is_long) u16(value.size() >> 16);
    return out + value;
}

std::string preamble() {
    const std::string syntax = element(2, 0x10, "UI", std::string("1.2.840.10008.1.2.1\0", 20));
    std::string length(4, '\0');
    length[0] = static_cast<char>(syntax.size());
    return std::string(128, '\0') + "DICM" + element(2, 0, "UL", length) + syntax;
}

/* depth sequences in each other, of undefined length: DCMTK descends into each. */
std::string nested(size_t depth) {
    std::string out = preamble();
    const std::string open(
        "\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", 20);
    const std::string close("\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00", 16);
    for (size_t i = 0; i < depth; i++) out += open;
    for (size_t i = 0; i < depth; i++) out += close;
    return out;
}

/* DCMTK's stack overflows: an error of this file, and the next one is read. */
void crash(void **) {
    const std::string bad = write_file("deep.dcm", nested(200000));
    const std::string good = write_file(
        "good.dcm", preamble() + element(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.88.11") +
                        element(0x20, 0xe, "UI", "1.2"));
    DicomWorker worker(nullptr);
    DicomFile file;
    for (int i = 0; i < 3; i++) {
        must_fail(failure_of([&] { worker.parse(bad, file); }), VX_ERR_INPUT, "damaged DICOM file");
        assert_true(worker.parse(good, file));
        assert_true(file.kind == DicomKind::other);
        assert_string_equal(file.class_name.c_str(), "BasicTextSRStorage");
    }
}

std::string script(const char *name, const char *body) {
    const std::string path = write_file(name, std::string("#!/bin/sh\n") + body + "\n");
    chmod(path.c_str(), 0755);
    return path;
}

void helpers_that_do_not_work(void **) {
    DicomFile file;
    const auto parse_with = [&](const std::string &program) {
        return failure_of([&] {
            DicomWorker worker(nullptr, program, 1000);
            worker.parse("/dev/null", file);
        });
    };
    must_fail(parse_with(folder + "/absent"), VX_ERR_RESOURCE, "cannot be started");
    must_fail(parse_with(script("gone", "exit 0")), VX_ERR_RESOURCE, "does not run");
    must_fail(parse_with(script("killed", "kill -9 $$")), VX_ERR_RESOURCE, "does not run");
    /* A greeting of another version: magic, ok, 5 bytes. */
    must_fail(
        parse_with(script(
            "old",
            "printf 'VXDM\\0\\0\\0\\0\\5\\0\\0\\0\\0\\0\\0\\0' >&0; printf 0.0.0 >&0; sleep 9")),
        VX_ERR_RESOURCE, "of version 0.0.0");
    must_fail(parse_with(script("noise", "printf '0123456789abcdef' >&0; sleep 9")), VX_ERR_INPUT,
              "makes no sense");
}

/* A helper that says nothing is ended when patience is over, or when the caller wants to stop. */
void silence(void **) {
    const std::string program = script("sleeper", "sleep 99");
    using clock = std::chrono::steady_clock;
    const auto begin = clock::now();
    DicomFile file;
    must_fail(failure_of([&] {
                  DicomWorker worker(nullptr, program, 1000);
                  worker.parse("x", file);
              }),
              VX_ERR_INPUT, "takes more than 1 s");
    vx_log log = {nullptr, [](void *, const char *, double) { return true; }, nullptr};
    must_fail(failure_of([&] {
                  DicomWorker worker(&log, program, 60000);
                  worker.parse("x", file);
              }),
              VX_ERR_CANCELLED, "cancelled");
    assert_true(clock::now() - begin < std::chrono::seconds(20));
}

/* The first child of this process. */
pid_t helper_of_mine() {
    std::ifstream list("/proc/self/task/" + std::to_string(getpid()) + "/children");
    pid_t child = 0;
    list >> child;
    return child;
}

/* Signals that a job system sends to all processes are the program's, not the helper's; one that
 * nobody survives is no error of the file. */
void signals(void **) {
    const std::string good = write_file(
        "signal.dcm", preamble() + element(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.88.11") +
                          element(0x20, 0xe, "UI", "1.2"));
    DicomWorker worker(nullptr);
    DicomFile file;
    assert_true(worker.parse(good, file));
    const pid_t helper = helper_of_mine();
    assert_true(helper > 0);
    for (int wish : {SIGINT, SIGHUP, SIGTERM}) {
        assert_int_equal(kill(helper, wish), 0);
        assert_true(worker.parse(good, file));
    }
    assert_int_equal(helper_of_mine(), helper);
    assert_int_equal(kill(helper, SIGKILL), 0);
    must_fail(failure_of([&] { worker.parse(good, file); }), VX_ERR_RESOURCE, "was killed");
    assert_true(worker.parse(good, file));
}

/* A file that makes its reader say more than is kept is refused, and what is said of the next one
 * is heard. */
void much_to_say(void **) {
    const std::string begin = preamble() + element(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.88.11");
    std::string noisy = begin;
    for (unsigned i = 0; i < 30000; i++) noisy += element(9, 0x1000 + i, "LO", "odd");
    const std::string bad = write_file("noisy.dcm", noisy);
    const std::string twice = write_file("twice.dcm", begin + element(0x20, 0xe, "UI", "1.2") +
                                                          element(0x20, 0xe, "UI", "1.3"));
    DicomWorker worker(nullptr);
    DicomFile file;
    for (int i = 0; i < 2; i++) {
        must_fail(failure_of([&] { worker.parse(bad, file); }), VX_ERR_INPUT, "too much to say");
        must_fail(failure_of([&] { worker.parse(twice, file); }), VX_ERR_INPUT, "twice");
    }
}

DicomFile sample() {
    DicomFile f;
    f.kind = DicomKind::multiframe;
    f.class_name = "EnhancedCTImageStorage";
    f.series_uid = "1.2.3";
    f.series_number = -7;
    f.rows = 5;
    f.columns = 6;
    f.bits_allocated = 16;
    f.bits_stored = 12;
    f.high_bit = 11;
    for (uint32_t k = 0; k < 3; k++) {
        DicomSlice slice;
        slice.frame = k;
        slice.has_geometry = true;
        slice.position[2] = 2.5 * k;
        slice.spacing[0] = slice.spacing[1] = 1;
        slice.traits = {"EchoTime 4.6", "StackID 1"};
        f.slices.push_back(slice);
    }
    return f;
}

void messages(void **) {
    const std::string bytes = pack_file(sample());
    DicomFile f;
    unpack_file(bytes.data(), bytes.size(), f);
    assert_true(pack_file(f) == bytes);
    assert_int_equal(f.series_number, -7);
    assert_int_equal(f.slices.size(), 3);
    assert_true(f.slices[2].position[2] == 5 && f.slices[1].traits[1] == "StackID 1");
    /* Cut anywhere, or with more behind it. */
    for (size_t n = 0; n < bytes.size(); n++)
        must_fail(failure_of([&] { unpack_file(bytes.data(), n, f); }), VX_ERR_INPUT, "no sense");
    const std::string more = bytes + "x";
    must_fail(failure_of([&] { unpack_file(more.data(), more.size(), f); }), VX_ERR_INPUT, "sense");

    const auto refused = [&](const std::function<void(DicomFile &)> &change) {
        DicomFile bad = sample(), out;
        change(bad);
        const std::string packed = pack_file(bad);
        must_fail(failure_of([&] { unpack_file(packed.data(), packed.size(), out); }), VX_ERR_INPUT,
                  "no sense");
    };
    refused([](DicomFile &b) { b.slices[1].position[0] = std::nan(""); });
    refused([](DicomFile &b) { b.slices[1].slope = INFINITY; });
    refused([](DicomFile &b) { b.slices.clear(); });
    refused([](DicomFile &b) { b.rows = 65536; });
    refused([](DicomFile &b) { b.rows = b.columns = 65535; });
    refused([](DicomFile &b) { b.bits_allocated = 12; });
    refused([](DicomFile &b) { b.bits_stored = 17; });
    refused([](DicomFile &b) { b.high_bit = 16; });
    refused([](DicomFile &b) { b.kind = static_cast<DicomKind>(9); });
}

/* Any bytes are refused or give a file within the limits. */
void hostile_messages(void **) {
    std::mt19937 random(1);
    const std::string whole = pack_file(sample());
    for (int i = 0; i < 20000; i++) {
        std::string bytes = whole;
        for (int k = 0; k < 3; k++) bytes[random() % bytes.size()] = static_cast<char>(random());
        DicomFile f;
        const Failure failure = failure_of([&] { unpack_file(bytes.data(), bytes.size(), f); });
        if (failure.code == VX_OK && f.problem.empty())
            assert_true(frame_bytes(f) > 0 && frame_bytes(f) <= largest_frame_bytes &&
                        f.high_bit + 1 >= f.bits_stored && !f.slices.empty());
    }
}

} // namespace

int main() {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder_and_look)
    const struct CMUnitTest tests[] = {
        TEST(crash),
        TEST(helpers_that_do_not_work),
        TEST(silence),
        TEST(signals),
        TEST(much_to_say),
        TEST(messages),
        TEST(hostile_messages),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
