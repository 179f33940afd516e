/* The helper process in which DICOM files are parsed and decoded.
 *
 * DCMTK and GDCM end or exhaust a process on some damaged files (a deep nesting of sequences
 * overflows DCMTK's stack; GDCM asserts). They run in voxmamba-dicom, one process for one reading;
 * what happens to it is an error of the file. docs/decisions/0005 says why it is a program. */
#ifndef VX_IO_DICOM_WORKER_H
#define VX_IO_DICOM_WORKER_H

#include <sys/types.h>

#include "io/dicom_seg.h"
#include "io/dicom_wire.h"

namespace vx_io {

/* Where voxmamba-dicom lies beside this library or program. Throws VX_ERR_RESOURCE. */
std::string dicom_helper_path();

/* Not for several threads at once. */
class DicomWorker {
  public:
    /* Starts nothing yet. log is asked for cancelling while the helper works. program: another one
     * than dicom_helper_path(). patience_ms: how long the helper may be
     * silent on one request before it is ended. */
    explicit DicomWorker(const vx_log *log, std::string program = "", int patience_ms = 60000);
    ~DicomWorker();
    DicomWorker(const DicomWorker &) = delete;
    DicomWorker &operator=(const DicomWorker &) = delete;

    /* What is going on, for the progress callback. Throws VX_ERR_CANCELLED when asked to. */
    void progress(const char *stage, double fraction);
    /* False when the file is no DICOM object. Throws VX_ERR_INPUT for a damaged file, also one that
     * crashes, exhausts or hangs the helper (which is started again for the next file), and
     * VX_ERR_RESOURCE when the helper cannot run. out.path is set. */
    bool parse(const std::string &path, DicomFile &out);
    /* The stored values of one frame, frame_bytes(file) of them. Throws like parse. */
    void pixels(const DicomFile &file, uint32_t frame, std::vector<unsigned char> &out);
    /* dicom_seg_header.h. source: the first of the plan's sources; not looked at for an anonymous
     * plan. Throws VX_ERR_INPUT when it is not there any more or another file is, VX_ERR_OUTPUT
     * when the object cannot be made, VX_ERR_RESOURCE like parse. */
    std::string seg_header(const SegPlan &plan, const std::string &source);

  private:
    void start();
    void stop();
    [[noreturn]] void lost();
    void send_all(const std::string &bytes);
    void send_request(DicomAsk ask, uint32_t frame, const std::string &path,
                      const std::string &body = "");
    DicomReply receive_head();
    void receive(void *to, size_t bytes);
    std::string receive_text(const DicomReply &head);

    const vx_log *log_;
    std::string program_;
    int patience_ms_;
    const char *stage_ = "read";
    double fraction_ = 0;
    pid_t child_ = -1;
    int socket_ = -1;
    bool greeted_ = false;
};

} // namespace vx_io

#endif
