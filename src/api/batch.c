/* Many cases: each worker has its own session, on one of the devices, and takes the next case; one
 * bad case does not stop the others. vxm_batch_run, at the end, is the order of things. */
#include "api/batch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/dicom_folders.h"
#include "api/order.h"
#include "api/read_ahead.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/out_file.h"
#include "base/threads.h"
#include "infer/prepare.h"

/* ---- Opening ---- */

static vxm_status check_batch_options(const vxm_batch_options *options,
                                      const vxm_segment_options *segment, vxm_error *error) {
    if (options->shards < 1 || options->shard < 1 || options->shard > options->shards)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                           "shard %u of %u (shards count from 1: 1/4 to 4/4)", options->shard,
                           options->shards);
    if (options->jobs < 1 || options->jobs > 1024)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE, "%u jobs (1 to 1024 are possible)",
                           options->jobs);
    if (options->resume && !segment->sidecars)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                           "resuming needs the sidecars of the run before (write them)");
    if (options->resume && segment->overwrite)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                           "resume and overwrite contradict each other (take one of them)");
    if (options->input_count && options->channel_count)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                           "inputs and channels by name do not go together (give all files of the "
                           "case as --channel NAME=FILE)");
    return VXM_OK;
}

static bool is_dicom_case(const vx_case_files *c) {
    const char *path = c->files[0];
    size_t n = strlen(path);
    return c->channel_count == 1 &&
           (vx_is_dicom_file(path) || path[n - 1] == '/' || !vx_known_ending(path));
}

static vxm_status check_dicom_seg(const vxm_batch *batch, vxm_error *error) {
    if (batch->rule.format != VX_FORMAT_DICOM_SEG) return VXM_OK;
    for (size_t i = 0; i < batch->list.count; i++)
        if (!is_dicom_case(&batch->list.cases[i]))
            return vx_api_fail(error, batch->list.cases[i].shown, VXM_ERR_USAGE, VX_NEEDS_DICOM);
    return VXM_OK;
}

/* Case k belongs to shard k mod shards + 1: neighbours, which are often alike, spread out. */
static vxm_status take_shard(vxm_batch *batch, vxm_error *error) {
    size_t shards = batch->options.shards, room = batch->list.count / shards + 1;
    batch->index = vx_alloc_zero(room, sizeof *batch->index);
    batch->targets = vx_alloc_zero(room, sizeof *batch->targets);
    batch->cases = vx_alloc_zero(room, sizeof *batch->cases);
    if (!batch->index || !batch->targets || !batch->cases) return vx_api_no_memory(error);
    for (size_t k = batch->options.shard - 1; k < batch->list.count; k += shards) {
        vxm_status s = vx_target_make(&batch->rule, batch->list.cases[k].name,
                                      &batch->targets[batch->count], error);
        if (s != VXM_OK) return s;
        const vx_case_files *files = &batch->list.cases[k];
        batch->cases[batch->count] = (vxm_case){.number = k + 1,
                                                .name = files->name,
                                                .input = files->shown,
                                                .output = batch->targets[batch->count].mask,
                                                .channels = files->channel_count};
        batch->index[batch->count++] = k;
    }
    return VXM_OK;
}

static vxm_status open_batch(vxm_batch *batch, vxm_error *error) {
    const vxm_batch_options *options = &batch->options;
    vxm_status s = check_batch_options(options, &batch->segment, error);
    if (s != VXM_OK) return s;
    s = options->channel_count
            ? vx_named_channels(options->channels, options->channel_count, &batch->list, error)
            : vx_find_cases(options->inputs, options->input_count, options->folders != 0,
                            &batch->list, error);
    if (s == VXM_OK)
        s = vx_output_rule_make(options->output, &batch->segment, batch->list.count, &batch->rule,
                                error);
    if (s == VXM_OK) s = check_dicom_seg(batch, error);
    return s == VXM_OK ? take_shard(batch, error) : s;
}

vxm_status vxm_batch_open(const vxm_batch_options *options, const vxm_segment_options *segment,
                          vxm_batch **out, vxm_error *error) {
    *out = NULL;
    vxm_batch *batch = vx_alloc_zero(1, sizeof *batch);
    if (!batch) return vx_api_no_memory(error);
    vxm_batch_options_init(&batch->options, sizeof batch->options);
    vxm_segment_options_init(&batch->segment, sizeof batch->segment);
    vxm_status s = vx_api_options(&batch->options, sizeof batch->options, options, error);
    if (s == VXM_OK) s = vx_api_options(&batch->segment, sizeof batch->segment, segment, error);
    if (s == VXM_OK) s = open_batch(batch, error);
    if (s != VXM_OK) {
        vxm_batch_close(batch);
        return s;
    }
    *out = batch;
    return VXM_OK;
}

/* Results, errors and plans are const for the caller only. */
static void forget_outcome(vxm_case *c) {
    vxm_result_free((vxm_result *)c->result);
    vx_free((vxm_error *)c->error);
    vx_free((vxm_plan *)c->plan);
    c->result = NULL;
    c->error = NULL;
    c->plan = NULL;
    c->status = VXM_CASE_PLANNED;
}

void vxm_batch_close(vxm_batch *batch) {
    if (!batch) return;
    for (size_t i = 0; i < batch->count; i++) {
        forget_outcome(&batch->cases[i]);
        vx_target_free(&batch->targets[i]);
    }
    cJSON_Delete(batch->run);
    vx_free(batch->index);
    vx_free(batch->targets);
    vx_free(batch->cases);
    vx_case_list_free(&batch->list);
    vx_free(batch);
}

/* ---- Looking at it ---- */

size_t vxm_batch_count(const vxm_batch *batch) { return batch->count; }

const vxm_case *vxm_batch_case(const vxm_batch *batch, size_t i) {
    return i < batch->count ? &batch->cases[i] : NULL;
}

vxm_status vx_batch_first_geometry(const vxm_batch *batch, vx_geometry *geo, size_t *channels,
                                   vxm_error *error) {
    vxm_status first = VXM_OK;
    for (size_t i = 0; i < batch->list.count; i++) {
        vx_image_info info;
        const vxm_status s = vx_inspect_inputs(&batch->list.cases[i], &batch->segment, &info,
                                               first == VXM_OK ? error : NULL);
        if (s == VXM_OK) {
            *geo = info.geo;
            *channels = info.channels;
            return VXM_OK;
        }
        if (first == VXM_OK) first = s;
    }
    return first;
}

/* ---- Running ---- */

typedef struct batch_run {
    vxm_batch *batch;
    const vx_choices *choices;
    vx_run_state state;
    size_t next;          /* case to take; this and order guarded by state.lock */
    vx_order order;       /* of what the cases say */
    vx_read_ahead *ahead; /* of the first case; NULL: none */
} batch_run;

typedef struct batch_worker {
    batch_run *run;
    vxm_session *session;
    pthread_t thread;
    bool started;
} batch_worker;

/* Notes how case i ended and tells the caller. Takes result. */
static void finish_case(batch_run *run, size_t i, vxm_status status, vxm_result *result,
                        const vxm_error *error) {
    vxm_batch *batch = run->batch;
    vxm_case *c = &batch->cases[i];
    c->result = result;
    if (status == VXM_OK) {
        bool skipped = result && result->skipped;
        c->status = skipped ? VXM_CASE_SKIPPED : VXM_CASE_DONE;
        if (batch->options.dry_run) c->status = VXM_CASE_PLANNED;
    } else {
        c->status = status == VXM_ERR_CANCELLED ? VXM_CASE_CANCELLED : VXM_CASE_FAILED;
        vxm_error *copy = vx_alloc(sizeof *copy);
        if (copy) *copy = *error;
        c->error = copy;
    }
    pthread_mutex_lock(&run->state.lock);
    run->state.cases_done++;
    vx_order_end(&run->order, i);
    pthread_mutex_unlock(&run->state.lock);
}

/* What segmenting would check before it reads a voxel. */
static vxm_status check_header(const batch_run *run, const vx_case_files *files,
                               vx_image_info *info, vxm_error *error) {
    const vxm_segment_options *options = &run->batch->segment;
    const vx_recipe *recipe = run->choices->recipe;
    vx_error err;
    vxm_status s = vx_inspect_inputs(files, options, info, error);
    if (s == VXM_OK) s = vx_check_channels(files, recipe, info->channels, error);
    if (s != VXM_OK) return s;
    vx_status t = vx_check_field_of_view(recipe, &info->geo, options->force != 0, NULL, &err);
    return t == VX_OK ? VXM_OK : vx_api_error(error, files->shown, t, &err);
}

static void say_caution(batch_run *run, size_t i, const char *text) {
    vx_run_state *state = &run->state;
    if (!text || !state->callbacks.log) return;
    pthread_mutex_lock(&state->lock);
    state->callbacks.log(state->callbacks.user_data, VXM_LOG_WARNING, run->batch->index[i] + 1,
                         text);
    pthread_mutex_unlock(&state->lock);
}

static void plan_case(batch_run *run, vxm_session *session, size_t i) {
    vxm_batch *batch = run->batch;
    vxm_error error;
    vx_image_info info;
    const vx_plan_outputs outputs = vx_choices_outputs(run->choices, &batch->targets[i]);
    vxm_status s = check_header(run, &batch->list.cases[batch->index[i]], &info, &error);
    vxm_plan *plan = s == VXM_OK ? vx_alloc_zero(1, sizeof *plan) : NULL;
    if (s == VXM_OK && !plan) s = vx_api_no_memory(&error);
    if (s == VXM_OK) s = vx_plan_volume(session, &info.geo, info.beside, &outputs, plan, &error);
    if (s == VXM_OK) say_caution(run, i, vx_plan_caution(&info.geo, &outputs));
    uint64_t limit = session->memory_limit;
    if (s == VXM_OK && limit && plan->peak_bytes > limit)
        s = vx_memory_short(batch->cases[i].input, plan->peak_bytes, limit, true, &error);
    if (s == VXM_OK)
        batch->cases[i].plan = plan;
    else
        vx_free(plan);
    finish_case(run, i, s, NULL, &error);
}

/* Case i without a session. */
static vx_case_run describe_case(batch_run *run, size_t i) {
    const vxm_batch *batch = run->batch;
    return (vx_case_run){.choices = run->choices,
                         .files = &batch->list.cases[batch->index[i]],
                         .target = &batch->targets[i],
                         .number = batch->index[i] + 1,
                         .resume = batch->options.resume != 0,
                         .state = &run->state};
}

static void segment_case(batch_run *run, vxm_session *session, size_t i) {
    vxm_error error;
    vxm_result *result = NULL;
    vx_case_run one = describe_case(run, i);
    one.session = session;
    one.ahead = i == 0 ? run->ahead : NULL;
    vxm_status s = vx_segment_case(&one, &result, &error);
    /* An error that names no file is about this case as a whole. */
    if (s != VXM_OK && !error.file[0])
        snprintf(error.file, sizeof error.file, "%s", one.files->shown);
    finish_case(run, i, s, result, &error);
}

static void *work(void *arg) {
    batch_worker *worker = arg;
    batch_run *run = worker->run;
    for (;;) {
        pthread_mutex_lock(&run->state.lock);
        size_t i = run->next++;
        pthread_mutex_unlock(&run->state.lock);
        if (i >= run->batch->count || atomic_load(&run->state.cancelled)) return NULL;
        if (run->batch->options.dry_run)
            plan_case(run, worker->session, i);
        else
            segment_case(run, worker->session, i);
    }
}

static void close_workers(batch_worker *workers, unsigned count) {
    for (unsigned j = 0; workers && j < count; j++) vxm_session_free(workers[j].session);
    vx_free(workers);
}

/* jobs on each device, and no more than cases. */
static unsigned count_workers(const vxm_batch *batch, const vx_device_list *devices) {
    const size_t most = (size_t)batch->options.jobs * devices->count;
    if (most <= batch->count) return (unsigned)most;
    return batch->count ? (unsigned)batch->count : 1;
}

static unsigned count_threads(const vxm_session_options *options) {
    return options->threads ? options->threads : vx_cpu_count();
}

/* The first case is read while a device with memory of its own is opened, which hardly takes the
 * host's threads. Not where there is a limit, of which the device's libraries take their share
 * first, where cases share memory, or where it may be done already. */
static void start_reading(batch_run *run, const vxm_session_options *options,
                          vx_device_list *devices) {
    const vxm_batch *batch = run->batch;
    const unsigned threads = count_threads(options);
    if (!devices->backend->sweep || !batch->count || count_workers(batch, devices) > 1 ||
        threads < 2 || options->memory_limit || batch->options.dry_run || batch->options.resume)
        return;
    const vx_case_run first = describe_case(run, 0);
    devices->host_free = vx_available_memory();
    run->ahead = vx_read_ahead_start(&first, threads);
}

/* A session each, the devices in turn; threads are divided between them, memory is taken case by
 * case. Devices that are left over share the tiles of those cases; probabilities need the host. */
static vxm_status open_workers(batch_run *run, const vxm_model *model,
                               const vxm_session_options *options, vx_device_list *devices,
                               batch_worker **out, unsigned *count, vxm_error *error) {
    vxm_session_options share = *options;
    const unsigned threads = count_threads(options);
    *count = count_workers(run->batch, devices);
    share.threads = threads / *count ? threads / *count : 1;
    batch_worker *workers = vx_alloc_zero(*count, sizeof *workers);
    if (!workers) return vx_api_no_memory(error);
    vxm_status s = VXM_OK;
    const bool shared = run->batch->count && !run->batch->segment.probabilities;
    for (unsigned j = 0; j < *count && s == VXM_OK; j++) {
        workers[j].run = run;
        s = vx_open_session(model, &share, devices, j, &workers[j].session, error);
    }
    for (unsigned j = 0; j < *count && s == VXM_OK && shared; j++)
        vx_open_others(workers[j].session, devices, j, *count);
    if (s != VXM_OK) {
        close_workers(workers, *count);
        return s;
    }
    *out = workers;
    return VXM_OK;
}

static void run_workers(batch_worker *workers, unsigned count) {
    for (unsigned j = 1; j < count; j++)
        workers[j].started = pthread_create(&workers[j].thread, NULL, work, &workers[j]) == 0;
    work(&workers[0]); /* whatever threads could not be started, this one does all that is left */
    for (unsigned j = 1; j < count; j++)
        if (workers[j].started) pthread_join(workers[j].thread, NULL);
}

/* ---- Before and after ---- */

static vxm_status check_new_file(const vxm_batch *batch, const char *path, vxm_error *error) {
    if (!path || batch->segment.overwrite || batch->options.resume || access(path, F_OK) != 0)
        return VXM_OK;
    return vx_api_fail(error, path, VXM_ERR_OUTPUT, "exists already (use --overwrite)");
}

/* Whether the file can be made at all, before hours of work that it is to describe. */
static vxm_status check_can_make(const char *path, vxm_error *error) {
    vx_error err;
    vx_out_file *file;
    if (!path) return VXM_OK;
    vx_status s = vx_out_open(path, &file, &err);
    if (s != VX_OK) return vx_api_error(error, path, s, &err);
    vx_out_discard(file);
    return VXM_OK;
}

/* Of any shard: reports and statistics replace what is there, with --overwrite. */
static bool is_input(const vxm_batch *batch, const char *path) {
    for (size_t i = 0; i < batch->list.count; i++)
        for (size_t k = 0; k < batch->list.cases[i].channel_count; k++)
            if (vx_same_file(path, batch->list.cases[i].files[k])) return true;
    return false;
}

/* Two files of one name, for example --stats and the sidecar of the only case. */
static vxm_status check_own_names(const vxm_batch *batch, vxm_error *error) {
    const char *own[2] = {batch->options.report_path, batch->options.stats_path};
    for (int k = 0; k < 2; k++) {
        if (!own[k]) continue;
        if (k == 1 && own[0] && strcmp(own[0], own[1]) == 0)
            return vx_api_fail(error, own[k], VXM_ERR_USAGE,
                               "report and statistics have one name (choose another)");
        if (is_input(batch, own[k]))
            return vx_api_fail(error, own[k], VXM_ERR_USAGE,
                               "this would replace an input (choose another)");
        for (size_t i = 0; i < batch->count; i++)
            if (strcmp(own[k], batch->targets[i].mask) == 0 ||
                (batch->targets[i].sidecar && strcmp(own[k], batch->targets[i].sidecar) == 0))
                return vx_api_fail(error, own[k], VXM_ERR_USAGE,
                                   "this is the name of a case's own file (choose another)");
    }
    return VXM_OK;
}

/* All that can be refused before the first voxel is read. */
static vxm_status check_outputs(const vxm_batch *batch, const vx_choices *choices,
                                vxm_error *error) {
    vxm_status s = check_own_names(batch, error);
    if (s == VXM_OK) s = vx_outputs_check_batch(&batch->rule, &batch->list, choices, error);
    if (s == VXM_OK) s = check_new_file(batch, batch->options.report_path, error);
    if (s == VXM_OK) s = check_new_file(batch, batch->options.stats_path, error);
    for (size_t i = 0; i < batch->count && s == VXM_OK; i++) {
        vx_outputs outputs;
        s = vx_outputs_make(&batch->targets[i], choices, &outputs, error);
        if (s != VXM_OK) return s;
        if (!batch->segment.overwrite && !batch->options.resume)
            s = vx_outputs_check_absent(&outputs, error);
        vx_outputs_free(&outputs);
    }
    return s;
}

/* The status of the whole run from those of its cases. */
static vxm_status summarise(const vxm_batch *batch, bool cancelled, vxm_error *error) {
    size_t failed = 0, first = 0;
    for (size_t i = batch->count; i-- > 0;)
        if (batch->cases[i].status == VXM_CASE_FAILED) {
            failed++;
            first = i;
        }
    if (cancelled) return vx_api_fail(error, NULL, VXM_ERR_CANCELLED, "cancelled");
    if (!failed) return VXM_OK;
    if (batch->list.count == 1) {
        const vxm_error *own = batch->cases[first].error;
        if (!own) return vx_api_no_memory(error);
        if (error) *error = *own;
        return own->code;
    }
    return vx_api_fail(
        error, NULL, VXM_ERR_BATCH, "%zu of %zu cases failed (%s)", failed, batch->count,
        batch->options.dry_run ? "a dry run: nothing is written" : "the others are written");
}

static vxm_status write_reports(const vxm_batch *batch, vxm_error *error) {
    bool replace = batch->segment.overwrite || batch->options.resume;
    const vxm_batch_options *options = &batch->options;
    vxm_status s = VXM_OK;
    if (options->report_path)
        s = vx_json_write(vx_batch_report(batch), options->report_path, replace, error);
    if (options->stats_path && s == VXM_OK)
        s = vx_json_write(vx_batch_stats(batch), options->stats_path, replace, error);
    return s;
}

/* A line of a case, under the run's lock. */
static void say_in_order(void *user_data, vxm_log_level level, size_t case_number,
                         const char *text) {
    batch_run *run = user_data;
    const vxm_batch_options *options = &run->batch->options;
    vx_order_say(&run->order, (case_number - options->shard) / options->shards, level, text);
}

static int pass_progress(void *user_data, const vxm_progress *progress) {
    const vxm_callbacks *to = &((batch_run *)user_data)->batch->segment.callbacks;
    return to->progress(to->user_data, progress);
}

/* The caller's callbacks behind the order of the cases. */
static vxm_status begin_speaking(batch_run *run, vxm_error *error) {
    const vxm_batch *batch = run->batch;
    const vxm_callbacks *to = &batch->segment.callbacks;
    vxm_callbacks ordered = {.user_data = run,
                             .log = to->log ? say_in_order : NULL,
                             .progress = to->progress ? pass_progress : NULL};
    vxm_status s = vx_order_create(batch->cases, batch->count, &run->order, error);
    run->order.log = to->log;
    run->order.log_data = to->user_data;
    run->order.on_case = batch->options.on_case;
    run->order.on_case_data = batch->options.user_data;
    if (s == VXM_OK) vx_run_state_init(&run->state, &ordered, batch->count);
    return s;
}

/* The folders and files that the run will want, before hours of work. */
static vxm_status prepare_outputs(const vxm_batch *batch, vxm_error *error) {
    if (batch->options.dry_run) return VXM_OK;
    vxm_status s = vx_output_folder_make(&batch->rule, error);
    if (s == VXM_OK) s = check_can_make(batch->options.report_path, error);
    if (s == VXM_OK) s = check_can_make(batch->options.stats_path, error);
    if (s == VXM_OK) vx_output_sweep(&batch->rule);
    return s;
}

/* Where the run computes. */
static void say_devices(const vxm_batch *batch, const batch_worker *workers, unsigned count,
                        unsigned devices) {
    const vxm_callbacks *to = &batch->segment.callbacks;
    char line[64];
    vx_say_device(workers[0].session, to);
    if (!to->log) return;
    for (unsigned j = 0; j < count; j++)
        if (workers[j].session->left_out[0])
            to->log(to->user_data, VXM_LOG_WARNING, 0, workers[j].session->left_out);
    if (devices < 2) return;
    snprintf(line, sizeof line, "%u such devices, %u case%s at a time", devices, count,
             count == 1 ? "" : "s");
    to->log(to->user_data, VXM_LOG_INFO, 0, line);
}

static vxm_status run_all(batch_run *run, batch_worker *workers, unsigned count,
                          const vx_device_list *devices, vxm_error *error) {
    vxm_batch *batch = run->batch;
    vxm_session *first = workers[0].session;
    unsigned used = count < devices->count ? count : devices->count;
    for (unsigned j = 0; j < count; j++) used += (unsigned)workers[j].session->other_count;
    say_devices(batch, workers, count, used);
    cJSON_Delete(batch->run);
    batch->run = vx_run_json(batch, first, run->choices, count, used);
    batch->started = vx_seconds();
    for (size_t i = 0; i < batch->count; i++) forget_outcome(&batch->cases[i]);
    vxm_status s = prepare_outputs(batch, error);
    if (s == VXM_OK) {
        vx_read_ahead_wait(run->ahead);
        vx_memory_begin(&run->state, first->memory_limit, vx_read_ahead_bytes(run->ahead));
        run_workers(workers, count);
    }
    batch->finished = vx_seconds();
    vx_order_free(&run->order); /* says what is left */
    if (s != VXM_OK) return s;
    s = summarise(batch, atomic_load(&run->state.cancelled), error);
    if (batch->options.dry_run) return s;
    vxm_status written = write_reports(batch, s == VXM_OK ? error : NULL);
    return s == VXM_OK ? written : s;
}

static vxm_status run_checked(vxm_batch *batch, const vxm_model *model,
                              const vxm_session_options *options, const vx_choices *choices,
                              const vx_device_source *source, vxm_error *error) {
    batch_worker *workers = NULL;
    unsigned count = 0;
    vxm_session_options known;
    vx_device_list devices;
    batch_run run = {.batch = batch, .choices = choices};
    vxm_session_options_init(&known, sizeof known);
    vxm_status s = vx_api_options(&known, sizeof known, options, error);
    if (s == VXM_OK) s = vx_devices_find(source, known.device, &devices, error);
    if (s == VXM_OK) s = begin_speaking(&run, error);
    if (s != VXM_OK) return s;
    start_reading(&run, &known, &devices);
    s = open_workers(&run, model, &known, &devices, &workers, &count, error);
    if (s == VXM_OK) s = run_all(&run, workers, count, &devices, error);
    vx_read_ahead_free(run.ahead);
    close_workers(workers, count);
    vx_order_free(&run.order);
    vx_run_state_destroy(&run.state);
    return s;
}

vxm_status vx_batch_run_on(vxm_batch *batch, const vxm_model *model,
                           const vxm_session_options *session, const vx_device_source *source,
                           vxm_error *error) {
    vx_choices choices;
    vxm_status s = vx_choices_make(&batch->segment, model->model->recipe, &choices, error);
    if (s != VXM_OK) return s;
    s = check_outputs(batch, &choices, error);
    if (s == VXM_OK) s = run_checked(batch, model, session, &choices, source, error);
    vx_choices_free(&choices);
    return s;
}

vxm_status vxm_batch_run(vxm_batch *batch, const vxm_model *model,
                         const vxm_session_options *session, vxm_error *error) {
    return vx_batch_run_on(batch, model, session, &vx_machine_devices, error);
}

vxm_status vxm_batch_report_json(const vxm_batch *batch, char **json, vxm_error *error) {
    *json = NULL;
    return vx_json_print(vx_batch_report(batch), json, error);
}
