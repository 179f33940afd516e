#include "io/dicom_worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>

extern "C" {
#include "base/self.h"
}

extern char **environ;

namespace vx_io {

namespace {

constexpr int poll_ms = 100; /* between two looks for a wish to cancel */

struct SpawnSetup {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    SpawnSetup() {
        posix_spawn_file_actions_init(&files);
        posix_spawnattr_init(&attributes);
    }
    ~SpawnSetup() {
        posix_spawn_file_actions_destroy(&files);
        posix_spawnattr_destroy(&attributes);
    }
};

/* The child gets the socket as its standard input, no output, and no signal set-up of ours: what is
 * meant for the program waits until the child has said that it does not want it. */
int spawn(const std::string &program, int socket, pid_t *child) {
    SpawnSetup setup;
    posix_spawn_file_actions_adddup2(&setup.files, socket, 0);
    posix_spawn_file_actions_addopen(&setup.files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&setup.files, 2, "/dev/null", O_WRONLY, 0);
    sigset_t waiting, all;
    sigemptyset(&waiting);
    for (int wish : {SIGINT, SIGHUP, SIGTERM}) sigaddset(&waiting, wish);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&setup.attributes, &waiting);
    posix_spawnattr_setsigdefault(&setup.attributes, &all);
    posix_spawnattr_setflags(&setup.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    std::string name = program;
    char *arguments[] = {name.data(), nullptr};
    return posix_spawn(child, program.c_str(), &setup.files, &setup.attributes, arguments, environ);
}

} // namespace

std::string dicom_helper_path() {
    /* Seen from the library, the installed program, the installed Slicer module, a program or
     * library in the build folder. */
    static const char *const places[] = {
        "voxmamba/voxmamba-dicom", VX_BINDIR_TO_LIBDIR "/voxmamba/voxmamba-dicom",
        "../voxmamba-dicom", "../lib/voxmamba/voxmamba-dicom", "../../lib/voxmamba/voxmamba-dicom"};
    char folder[PATH_MAX];
    if (vx_self_folder(folder))
        for (const char *place : places) {
            const std::string path = std::string(folder) + place;
            if (access(path.c_str(), X_OK) == 0) return path;
        }
    fail(VX_ERR_RESOURCE, "DICOM cannot be read: lib/voxmamba/voxmamba-dicom is missing (install "
                          "the whole package)");
}

DicomWorker::DicomWorker(const vx_log *log, std::string program, int patience_ms)
    : log_(log), program_(std::move(program)), patience_ms_(patience_ms) {}

DicomWorker::~DicomWorker() { stop(); }

void DicomWorker::progress(const char *stage, double fraction) {
    stage_ = stage;
    fraction_ = fraction;
    if (vx_log_progress(log_, stage, fraction)) fail(VX_ERR_CANCELLED, "cancelled");
}

void DicomWorker::start() {
    if (program_.empty()) program_ = dicom_helper_path();
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        fail(VX_ERR_RESOURCE, "the DICOM reader cannot be started: %s", std::strerror(errno));
    socket_ = ends[0];
    greeted_ = false;
    const int problem = spawn(program_, ends[1], &child_);
    close(ends[1]);
    if (problem != 0) {
        child_ = -1;
        stop();
        fail(VX_ERR_RESOURCE, "the DICOM reader cannot be started: %s", std::strerror(problem));
    }
    const DicomReply hello = receive_head();
    const std::string text = receive_text(hello);
    const bool usable = hello.answer == static_cast<uint32_t>(DicomAnswer::ok);
    if (!usable || text != VX_VERSION) {
        stop();
        if (usable)
            fail(VX_ERR_RESOURCE, "voxmamba-dicom is of version %s (install the whole package)",
                 text.c_str());
        fail(VX_ERR_RESOURCE, "%s", text.c_str());
    }
    greeted_ = true;
}

/* Ends the helper whatever it is doing, and leaves no zombie. */
void DicomWorker::stop() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
    if (child_ < 0) return;
    kill(child_, SIGKILL);
    while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
}

/* The helper closed its end: by a signal, or by itself. */
void DicomWorker::lost() {
    int status = 0;
    pid_t ended = 0;
    for (int waited = 0; waited < 200 && ended == 0; waited++) { /* it is about to end */
        ended = waitpid(child_, &status, WNOHANG);
        if (ended == 0) usleep(10000);
    }
    const bool known = ended == child_;
    if (ended != 0) child_ = -1;
    const bool greeted = greeted_;
    stop();
    if (!greeted)
        fail(VX_ERR_RESOURCE, "the DICOM reader voxmamba-dicom does not run (install the whole "
                              "package with its libraries)");
    /* Not by us, and no crash: nothing in a file does that. */
    if (known && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        fail(VX_ERR_RESOURCE, "the DICOM reader was killed (is memory short?)");
    if (known && WIFSIGNALED(status))
        fail(VX_ERR_INPUT, "damaged DICOM file: its reader crashed (%s)",
             strsignal(WTERMSIG(status)));
    fail(VX_ERR_INPUT, "damaged DICOM file: its reader gave up");
}

void DicomWorker::receive(void *to, size_t bytes) {
    using clock = std::chrono::steady_clock;
    auto *at = static_cast<unsigned char *>(to);
    auto last = clock::now();
    while (bytes > 0) {
        pollfd waiting = {socket_, POLLIN, 0};
        const int ready = poll(&waiting, 1, poll_ms);
        if (ready < 0 && errno != EINTR)
            fail(VX_ERR_RESOURCE, "the DICOM reader is lost: %s", std::strerror(errno));
        if (ready <= 0) {
            progress(stage_, fraction_);
            if (clock::now() - last < std::chrono::milliseconds(patience_ms_)) continue;
            stop();
            fail(VX_ERR_INPUT, "damaged DICOM file: reading it takes more than %d s",
                 patience_ms_ / 1000);
        }
        const ssize_t got = recv(socket_, at, bytes, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) lost();
        at += got;
        bytes -= static_cast<size_t>(got);
        last = clock::now();
    }
}

DicomReply DicomWorker::receive_head() {
    DicomReply head;
    receive(&head, sizeof head);
    const bool text = head.answer == static_cast<uint32_t>(DicomAnswer::refused) ||
                      head.answer == static_cast<uint32_t>(DicomAnswer::unusable);
    const bool known = head.answer <= static_cast<uint32_t>(DicomAnswer::unusable);
    if (head.magic == dicom_magic && known && (!text || head.bytes <= dicom_text_limit))
        return head;
    stop();
    fail(VX_ERR_INPUT, "damaged DICOM file: its reader's answer makes no sense");
}

std::string DicomWorker::receive_text(const DicomReply &head) {
    if (head.bytes > dicom_text_limit) {
        stop();
        fail(VX_ERR_INPUT, "damaged DICOM file: its reader's answer makes no sense");
    }
    std::string text(head.bytes, ' ');
    receive(text.data(), text.size());
    return one_line(text, dicom_text_limit);
}

void DicomWorker::send_all(const std::string &bytes) {
    for (size_t sent = 0; sent < bytes.size();) {
        const ssize_t n = send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) lost();
        sent += static_cast<size_t>(n);
    }
}

void DicomWorker::send_request(DicomAsk ask, uint32_t frame, const std::string &path,
                               const std::string &body) {
    if (path.size() >= dicom_path_limit) fail(VX_ERR_INPUT, "the path is too long");
    if (socket_ < 0) start();
    const DicomRequest head = {dicom_magic, static_cast<uint32_t>(ask), frame,
                               static_cast<uint32_t>(path.size()), body.size()};
    send_all(std::string(reinterpret_cast<const char *>(&head), sizeof head) + path);
    send_all(body);
}

bool DicomWorker::parse(const std::string &path, DicomFile &out) {
    out = DicomFile();
    out.path = path;
    send_request(DicomAsk::parse, 0, path);
    const DicomReply head = receive_head();
    switch (static_cast<DicomAnswer>(head.answer)) {
    case DicomAnswer::not_dicom:
        return false;
    case DicomAnswer::ok:
        break;
    default:
        fail(VX_ERR_INPUT, "%s", receive_text(head).c_str());
    }
    if (head.bytes > dicom_file_limit) {
        stop();
        fail(VX_ERR_INPUT, "damaged DICOM file: its reader's answer makes no sense");
    }
    std::vector<char> bytes(head.bytes);
    receive(bytes.data(), bytes.size());
    unpack_file(bytes.data(), bytes.size(), out);
    return true;
}

void DicomWorker::pixels(const DicomFile &file, uint32_t frame, std::vector<unsigned char> &out) {
    send_request(DicomAsk::pixels, frame, file.path);
    const DicomReply head = receive_head();
    if (head.answer != static_cast<uint32_t>(DicomAnswer::ok))
        fail(VX_ERR_INPUT, "%s", receive_text(head).c_str());
    if (head.bytes != frame_bytes(file)) {
        stop();
        fail(VX_ERR_INPUT, "%llu bytes of pixels, %zu are needed",
             static_cast<unsigned long long>(head.bytes), frame_bytes(file));
    }
    out.resize(head.bytes);
    receive(out.data(), out.size());
}

std::string DicomWorker::seg_header(const SegPlan &plan, const std::string &source) {
    const std::string body = pack_plan(plan);
    if (body.size() > dicom_plan_limit)
        fail(VX_ERR_INPUT, "the DICOM SEG takes %zu bytes to describe, at most %zu are written",
             body.size(), dicom_plan_limit);
    progress("write", 0);
    send_request(DicomAsk::seg, 0, plan.anonymous ? "" : source, body);
    const DicomReply head = receive_head();
    if (head.answer != static_cast<uint32_t>(DicomAnswer::ok))
        fail(VX_ERR_INPUT, "the DICOM SEG cannot be made: %s", receive_text(head).c_str());
    constexpr size_t magic_at = 128;
    if (head.bytes >= magic_at + 4 && head.bytes <= dicom_header_limit && head.bytes % 2 == 0) {
        std::string header(head.bytes, ' ');
        receive(header.data(), header.size());
        if (header.compare(magic_at, 4, "DICM") == 0) return header;
    }
    stop();
    fail(VX_ERR_OUTPUT, "the DICOM SEG's header makes no sense");
}

} // namespace vx_io
