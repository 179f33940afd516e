#include "api/read_ahead.h"

#include <string.h>

#include "api/lines.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"

/* How one of the two steps ended. */
typedef struct step {
    vxm_status status;
    vxm_error error;
    double seconds;
} step;

struct vx_read_ahead {
    vx_case_run run; /* the case, with a log and a result of its own */
    vx_pool *pool;   /* not the session's, which is packing weights */
    pthread_t thread;
    bool running; /* not joined yet */
    atomic_bool stop, speaks;
    /* The thread's until it is joined. */
    step hash, read;
    vx_lines lines; /* of the reading; hashing says nothing */
    vx_volume *image;
};

static void keep_line(void *user_data, vx_log_level level, const char *text) {
    vx_read_ahead *ahead = user_data;
    (void)vx_lines_add(&ahead->lines, level, text); /* lost where there is no memory for a line */
}

static bool ask(void *user_data, const char *stage, double fraction) {
    vx_read_ahead *ahead = user_data;
    if (atomic_load(&ahead->speaks) && vx_say_progress(&ahead->run, stage, fraction))
        atomic_store(&ahead->stop, true);
    return atomic_load(&ahead->stop);
}

/* There is no session yet to make a plan of: what the reading itself takes must be there. */
static vxm_status ask_room(void *data, const vx_geometry *geo, uint64_t beside, vxm_error *error) {
    const vx_read_ahead *ahead = data;
    const size_t channels = ahead->run.choices->recipe->channel_count;
    size_t bytes;
    if (vx_product(geo->dims, 3, &bytes) && vx_mul_size(bytes, sizeof(float), &bytes) &&
        vx_mul_size(bytes, channels + (channels > 1), &bytes) && beside < UINT64_MAX - bytes &&
        bytes + beside < vx_available_memory())
        return VXM_OK;
    return vx_api_no_memory(error);
}

static void *work(void *arg) {
    vx_read_ahead *ahead = arg;
    const double start = vx_seconds();
    ahead->hash.status = vx_hash_inputs(&ahead->run, &ahead->hash.error);
    const double hashed = vx_seconds();
    ahead->hash.seconds = hashed - start;
    if (ahead->hash.status != VXM_OK) return NULL;
    const vx_admission admission = {ask_room, ahead};
    ahead->read.status =
        vx_read_inputs(&ahead->run, ahead->pool, admission, &ahead->image, &ahead->read.error);
    ahead->read.seconds = vx_seconds() - hashed;
    return NULL;
}

vx_read_ahead *vx_read_ahead_start(const vx_case_run *like, unsigned threads) {
    vx_read_ahead *ahead = vx_alloc_zero(1, sizeof *ahead);
    if (!ahead) return NULL;
    ahead->run = *like;
    ahead->run.log = (vx_log){.message = keep_line, .progress = ask, .user_data = ahead};
    ahead->run.share = 0.05; /* of the case's time, as vx_segment_case counts it */
    ahead->run.result = vx_result_create();
    atomic_init(&ahead->stop, false);
    atomic_init(&ahead->speaks, false);
    if (ahead->run.result && vx_pool_create(threads, &ahead->pool, NULL) == VX_OK)
        ahead->running = pthread_create(&ahead->thread, NULL, work, ahead) == 0;
    if (ahead->running) return ahead;
    vx_read_ahead_free(ahead);
    return NULL;
}

static void join(vx_read_ahead *ahead) {
    if (ahead->running) pthread_join(ahead->thread, NULL);
    ahead->running = false;
}

void vx_read_ahead_wait(vx_read_ahead *ahead) {
    if (!ahead) return;
    atomic_store(&ahead->speaks, true);
    join(ahead);
    vx_pool_free(ahead->pool);
    ahead->pool = NULL;
}

void vx_read_ahead_free(vx_read_ahead *ahead) {
    if (!ahead) return;
    atomic_store(&ahead->stop, true);
    join(ahead);
    vx_pool_free(ahead->pool);
    vx_lines_end(&ahead->lines, NULL, NULL);
    vx_volume_free(ahead->image);
    if (ahead->run.result) vxm_result_free(&ahead->run.result->pub);
    vx_free(ahead);
}

uint64_t vx_read_ahead_bytes(const vx_read_ahead *ahead) {
    if (!ahead || !ahead->image) return 0;
    return vx_voxels(&ahead->image->geo) * ahead->image->channels * sizeof(float);
}

double vx_read_ahead_seconds(const vx_read_ahead *ahead) {
    return ahead ? ahead->hash.seconds + ahead->read.seconds : 0;
}

/* The caller was asked by the other thread: what it wanted to stop is the whole run. */
static vxm_status end_of(const step *s, vx_case_run *run, vxm_error *error) {
    if (s->status == VXM_ERR_CANCELLED) atomic_store(&run->state->cancelled, true);
    if (s->status != VXM_OK && error) *error = s->error;
    return s->status;
}

vxm_status vx_read_ahead_hash(vx_read_ahead *ahead, vx_case_run *run, vxm_error *error) {
    vxm_result *result = &run->result->pub;
    memcpy(result->input_sha256, ahead->run.result->pub.input_sha256, sizeof result->input_sha256);
    result->hash_s += ahead->hash.seconds;
    return end_of(&ahead->hash, run, error);
}

vxm_status vx_read_ahead_image(vx_read_ahead *ahead, vx_case_run *run, vx_volume **out,
                               vxm_error *error) {
    *out = NULL;
    if (ahead->read.status == VXM_ERR_RESOURCE) return VXM_OK;
    run->result->pub.read_s += ahead->read.seconds;
    vx_lines_end(&ahead->lines, run->log.message, run->log.user_data);
    *out = ahead->image;
    ahead->image = NULL;
    return end_of(&ahead->read, run, error);
}
