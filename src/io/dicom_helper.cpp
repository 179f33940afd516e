/* voxmamba-dicom: parses and decodes DICOM files for the library, in a process of its own that may
 * crash, be ended or run out of memory. Talks over its standard input (dicom_wire.h); not for use
 * by hand. Never writes a file. */
#include <fcntl.h>
#include <gdcmTrace.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <memory>

#include "io/dicom_attributes.h"
#include "io/dicom_library.h"
#include "io/dicom_parse.h"
#include "io/dicom_seg_header.h"
#include "io/dicom_wire.h"

namespace {

using namespace vx_io;

/* Address space: several times the largest frame, with what decoders need beside it. */
constexpr rlim_t memory_limit = rlim_t(3) << 30;

/* Bytes that class Noise keeps. */
constexpr rlim_t noise_limit = 1 << 20;

void limit_self() {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlive the thread that reads */
    close_range(3, ~0U, 0);           /* nothing of the caller's is ours */
    /* The caller decides what a key on the terminal means, or a signal to all of its group. */
    for (int wish : {SIGINT, SIGHUP, SIGTERM}) signal(wish, SIG_IGN);
    const rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    const rlimit noise_only = {noise_limit, noise_limit}; /* no other file is written */
    setrlimit(RLIMIT_FSIZE, &noise_only);
    signal(SIGXFSZ, SIG_IGN);
#ifndef __SANITIZE_ADDRESS__ /* its shadow alone is larger */
    const rlimit memory = {memory_limit, memory_limit};
    setrlimit(RLIMIT_AS, &memory);
#endif
}

/* What libraries print goes to a file in memory, and is an error where a decoder says it. */
class Noise {
  public:
    Noise() : fd_(memfd_create("voxmamba-dicom", MFD_CLOEXEC)) {
        if (fd_ < 0) return;
        dup2(fd_, 1);
        dup2(fd_, 2);
    }
    void forget() { (void)text(); }
    /* What was printed since the last call; "" without such a file. Throws when it was more than is
     * kept: what the rest said nobody knows. */
    std::string take() {
        const std::string said = text();
        if (said.size() >= noise_limit)
            fail(VX_ERR_INPUT, "damaged DICOM file: its reader has too much to say about it");
        return one_line(said, said.size());
    }

  private:
    std::string text() {
        std::cout.flush();
        std::cerr.flush();
        std::fflush(nullptr);
        /* A stream that has met the limit would be silent about all files to come. */
        for (std::ostream *stream : {&std::cout, &std::cerr, &std::clog}) stream->clear();
        for (std::FILE *stream : {stdout, stderr}) clearerr(stream);
        const off_t size = lseek(fd_, 0, SEEK_CUR);
        if (size <= 0) return "";
        std::string said(static_cast<size_t>(size), ' ');
        const ssize_t got = pread(fd_, said.data(), said.size(), 0);
        if (got < 0 || ftruncate(fd_, 0) != 0 || lseek(fd_, 0, SEEK_SET) != 0)
            fail(VX_ERR_INPUT, "what the decoder says cannot be read");
        return said;
    }

    int fd_;
};

bool receive(void *to, size_t bytes) {
    auto *at = static_cast<char *>(to);
    while (bytes > 0) {
        const ssize_t got = read(0, at, bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        bytes -= static_cast<size_t>(got);
    }
    return true;
}

bool send_all(const void *from, size_t bytes) {
    const auto *at = static_cast<const char *>(from);
    while (bytes > 0) {
        const ssize_t sent = send(0, at, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return false;
        at += sent;
        bytes -= static_cast<size_t>(sent);
    }
    return true;
}

bool reply(DicomAnswer answer, const void *body, size_t bytes) {
    const DicomReply head = {dicom_magic, static_cast<uint32_t>(answer), bytes};
    return send_all(&head, sizeof head) && send_all(body, bytes);
}

bool reply_text(DicomAnswer answer, const std::string &text) {
    const std::string line = one_line(text, dicom_text_limit);
    return reply(answer, line.data(), line.size());
}

/* The file that was asked for last stays open: its frames are asked for one by one. */
struct Current {
    DcmFileFormat format;
    DicomFile file;
    FrameTable frames;
    bool is_dicom = false;
};

/* Where DCMTK guesses and goes on, others guess otherwise: what is meant nobody knows. Its other
 * warnings are about sloppy but readable files. */
void check_warnings(const std::string &said) {
    static const struct {
        const char *words, *meaning;
    } table[] = {{"found twice", "it holds an attribute twice"},
                 {"Non-standard VR", "the type of an attribute is unknown"},
                 {"end of stream", "it is cut short"},
                 {"Invalid Element", "its header holds what does not belong there"}};
    for (const auto &row : table)
        if (said.find(row.words) != std::string::npos)
            fail(VX_ERR_INPUT, "damaged DICOM file: %s", row.meaning);
    static const char odd[] = "Length of element (";
    for (size_t at = said.find(odd); at != std::string::npos; at = said.find(odd, at + 1)) {
        unsigned group = 0, element = 0;
        const int found =
            std::sscanf(said.c_str() + at + sizeof odd - 1, "%4x,%4x) is odd", &group, &element);
        const DcmTag tag(static_cast<Uint16>(group), static_cast<Uint16>(element));
        if (found == 2 && tag.getEVR() == EVR_SQ)
            fail(VX_ERR_INPUT, "damaged DICOM file: a sequence has an odd length");
    }
}

std::unique_ptr<Current> open_file(const std::string &path, Noise &noise) {
    auto current = std::make_unique<Current>();
    noise.forget();
    current->is_dicom = parse_dicom_file(path, current->format, current->file);
    check_warnings(noise.take());
    return current;
}

/* GDCM takes an extended JPEG of 12 bits for one of 16, says so, and decodes it as one of 12. What
 * it says beside that counts. */
bool is_second_try(const std::string &said) {
    const std::string begin = "Unsupported JPEG data precision 12 Warning: ";
    const std::string end = "DICOM header said it was 16 but JPEG header says it's: 12";
    return said.size() > begin.size() + end.size() && said.compare(0, begin.size(), begin) == 0 &&
           said.compare(said.size() - end.size(), end.size(), end) == 0 &&
           said.find("Warning: ", begin.size()) == std::string::npos &&
           said.find("Error: ") == std::string::npos;
}

/* The source must be the file that the mask was made from: its patient is named. */
bool answer_seg(const std::string &path, const std::string &body, Noise &noise) {
    SegPlan plan;
    unpack_plan(body.data(), body.size(), plan);
    std::unique_ptr<Current> source;
    if (!plan.anonymous) {
        source = open_file(path, noise);
        const DicomFile &file = source->file;
        if (!source->is_dicom || file.sop_instance != plan.sources.front().sop_instance ||
            file.series_uid != plan.series_uid)
            fail(VX_ERR_INPUT, "the input has changed since it was read");
    }
    const std::string header = seg_header(plan, source ? source->format.getDataset() : nullptr);
    return reply(DicomAnswer::ok, header.data(), header.size());
}

bool answer(const DicomRequest &request, const std::string &path, const std::string &body,
            std::unique_ptr<Current> &current, Noise &noise) {
    if (request.ask == static_cast<uint32_t>(DicomAsk::seg)) return answer_seg(path, body, noise);
    const bool parse = request.ask == static_cast<uint32_t>(DicomAsk::parse);
    if (parse || !current || current->file.path != path) {
        current.reset();
        current = open_file(path, noise);
    }
    if (!current->is_dicom) return reply(DicomAnswer::not_dicom, "", 0);
    if (parse) {
        const std::string packed = pack_file(current->file);
        return reply(DicomAnswer::ok, packed.data(), packed.size());
    }
    noise.forget();
    const auto pixels =
        stored_pixels(current->file, *current->format.getDataset(), request.frame, current->frames);
    const std::string said = noise.take();
    if (!said.empty() && !is_second_try(said))
        fail(VX_ERR_INPUT, "the pixels are damaged: %s", ascii_line(said, 200).c_str());
    return reply(DicomAnswer::ok, pixels.data(), pixels.size());
}

bool serve(const DicomRequest &request, const std::string &path, const std::string &body,
           std::unique_ptr<Current> &current, Noise &noise) {
    try {
        return answer(request, path, body, current, noise);
    } catch (const Failure &failure) {
        return reply_text(DicomAnswer::refused, failure.text);
    } catch (const std::bad_alloc &) {
        if (request.ask == static_cast<uint32_t>(DicomAsk::seg))
            return reply_text(DicomAnswer::refused, "it takes more memory than its maker may have");
        return reply_text(DicomAnswer::refused,
                          "damaged DICOM file: it claims more memory than any image needs");
    } catch (const std::exception &e) {
        return reply_text(DicomAnswer::refused, std::string("damaged DICOM file: ") + e.what());
    }
}

int run() {
    Noise noise;
    try {
        prepare_dicom();
    } catch (const Failure &failure) {
        return !reply_text(DicomAnswer::unusable, failure.text);
    }
    OFLog::configure(OFLogger::WARN_LOG_LEVEL);
    gdcm::Trace::WarningOn();
    gdcm::Trace::ErrorOn();
    if (!reply_text(DicomAnswer::ok, VX_VERSION)) return 1;
    std::unique_ptr<Current> current;
    for (;;) {
        DicomRequest request;
        if (!receive(&request, sizeof request)) return 0;
        if (request.magic != dicom_magic || request.path_bytes >= dicom_path_limit ||
            request.body_bytes > dicom_plan_limit)
            return 1;
        std::string path(request.path_bytes, ' ');
        if (!receive(path.data(), path.size())) return 0;
        std::string body(request.body_bytes, ' ');
        if (!receive(body.data(), body.size())) return 0;
        if (!serve(request, path, body, current, noise)) return 1;
    }
}

} // namespace

int main() {
    struct stat input;
    if (fstat(0, &input) != 0 || !S_ISSOCK(input.st_mode)) {
        std::fputs("voxmamba-dicom reads DICOM files for voxmamba; it is not run by hand\n",
                   stderr);
        return 1;
    }
    limit_self();
    _exit(run()); /* without destructors of libraries: nothing is written */
}
