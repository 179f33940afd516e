/* A stack of parallel slices that are unevenly spaced, tilted or shifted, on a straight, even
 * grid: linear interpolation within a slice (each is shifted by a constant), then between the two
 * slices above and below. */
#include <algorithm>
#include <cmath>
#include <limits>

#include "io/dicom_series.h"

namespace vx_io {

namespace {

/* What is still interpolation. Real series that need it have gaps of up to 1.7 usual ones and make
 * up to 1.6 times their voxels; thin slices at the skull's base and thick ones above could make a
 * gap of 8, and a gantry tilted by its 30 degrees makes a head's slices 1.5 times as high. Series
 * that lack files: gaps of 67 and 114, 4 times the voxels (docs/dicom.md). */
constexpr double most_gap = 10;   /* times the usual gap */
constexpr double most_growth = 4; /* times the voxels of the slices */
constexpr float uncovered = std::numeric_limits<float>::quiet_NaN();

/* Where a slice lies in the frame of the first: mm along its rows, columns and normal. */
struct Place {
    double x, y, height;
};

Place place_of(const DicomSlice &first, const DicomSlice &slice) {
    double offset[3], normal[3];
    for (int i = 0; i < 3; i++) offset[i] = slice.position[i] - first.position[i];
    slice_normal(first, normal);
    return {along(first.along_row, offset), along(first.along_column, offset),
            along(normal, offset)};
}

/* Slices at a position of their own, in order. */
std::vector<size_t> distinct_slices(const DicomSeries &s) {
    std::vector<size_t> out;
    for (size_t k = 0; k < s.slices.size(); k++) {
        const double height = place_of(s.slices.front(), s.slices[k]).height;
        if (out.empty() ||
            height - place_of(s.slices.front(), s.slices[out.back()]).height >= same_position)
            out.push_back(k);
    }
    return out;
}

/* Values of out[target + i] from in, which begins shift pixels later: linear, uncovered outside. */
struct Axis {
    ptrdiff_t whole; /* in index = out index + whole (+ 1) */
    float share;     /* of the later one */
    size_t size;
    Axis(double first, double begin, double spacing, size_t n) : size(n) {
        const double index = first - begin / spacing;
        whole = static_cast<ptrdiff_t>(std::floor(index + 1e-6));
        share = static_cast<float>(std::max(0.0, index - static_cast<double>(whole)));
        if (share < 1e-4f) share = 0; /* pixels that fit keep their values */
    }
    bool covers(ptrdiff_t i) const {
        const auto n = static_cast<ptrdiff_t>(size);
        return i + whole >= 0 && i + whole + (share > 0 ? 1 : 0) < n;
    }
};

struct Stack {
    const DicomSeries &series;
    const vx_geometry &geo;
    double x0, y0; /* of the grid's first pixel, mm in the frame of the first slice */
    DicomWorker &worker;
    std::vector<float> raw;

    /* Slice k on the grid's pixels. */
    void read(size_t k, std::vector<float> &out) {
        const DicomSlice &first = series.slices.front(), &slice = series.slices[k];
        const DicomFile &f = series.file_of(slice);
        raw.resize(static_cast<size_t>(f.rows) * f.columns);
        read_slice(worker, f, slice, raw.data());
        const Place place = place_of(first, slice);
        const Axis x(x0 / first.spacing[0], place.x, first.spacing[0], f.columns);
        const Axis y(y0 / first.spacing[1], place.y, first.spacing[1], f.rows);
        const size_t w = geo.dims[0], h = geo.dims[1];
        out.assign(w * h, uncovered);
        for (size_t j = 0; j < h; j++)
            for (size_t i = 0; i < w; i++)
                if (x.covers(static_cast<ptrdiff_t>(i)) && y.covers(static_cast<ptrdiff_t>(j)))
                    out[j * w + i] =
                        sample(x, y, static_cast<ptrdiff_t>(i), static_cast<ptrdiff_t>(j));
    }

    float sample(const Axis &x, const Axis &y, ptrdiff_t i, ptrdiff_t j) const {
        const float *row =
            raw.data() + (j + y.whole) * static_cast<ptrdiff_t>(x.size) + i + x.whole;
        const auto on_row = [&](const float *p) {
            return x.share > 0 ? (1 - x.share) * p[0] + x.share * p[1] : p[0];
        };
        if (!(y.share > 0)) return on_row(row);
        return (1 - y.share) * on_row(row) + y.share * on_row(row + x.size);
    }
};

/* Copies of a slice are left out; two that differ are not copies. */
void check_copies(Stack &stack, const std::vector<size_t> &distinct) {
    std::vector<float> kept, copy;
    size_t next = 0;
    for (size_t k = 0; k < stack.series.slices.size(); k++) {
        if (next < distinct.size() && distinct[next] == k) {
            next++;
            continue;
        }
        stack.read(distinct[next - 1], kept);
        stack.read(k, copy);
        const bool same = std::equal(kept.begin(), kept.end(), copy.begin(), [](float a, float b) {
            return a == b || (std::isnan(a) && std::isnan(b));
        });
        if (!same)
            fail(VX_ERR_INPUT, "two slices at one position hold different pixels (remove one)");
    }
}

/* gaps: ascending. */
void check_gaps(const std::vector<double> &gaps) {
    const double usual = gaps[gaps.size() / 2];
    if (gaps.back() > most_gap * usual)
        fail(VX_ERR_INPUT,
             "a gap of %.3f mm between slices that are else %.3f mm apart is too large to be "
             "interpolated (are files missing?)",
             gaps.back(), usual);
}

/* dims: of the grid, as they may not fit into integers. */
void check_growth(const double (&dims)[3], const DicomFile &f, size_t slices) {
    const double stored = static_cast<double>(f.columns) * f.rows * static_cast<double>(slices);
    const double growth = dims[0] * dims[1] * dims[2] / stored;
    if (!(growth <= most_growth))
        fail(VX_ERR_INPUT,
             "a straight grid would take %.0f x %.0f x %.0f voxels, %.1f times as many as the "
             "slices have (they lie too far apart)",
             dims[0], dims[1], dims[2], growth);
}

} // namespace

vx_geometry straight_grid(const DicomSeries &s) {
    const DicomSlice &first = s.slices.front();
    const std::vector<size_t> distinct = distinct_slices(s);
    if (distinct.size() < 2) fail(VX_ERR_INPUT, "one slice: a 3D volume is needed");
    std::vector<double> gaps;
    double low[2] = {0, 0}, high[2] = {0, 0}, height = 0;
    for (size_t k : distinct) {
        const Place place = place_of(first, s.slices[k]);
        if (k > 0) gaps.push_back(place.height - height);
        height = place.height;
        const double shift[2] = {place.x / first.spacing[0], place.y / first.spacing[1]};
        for (int i = 0; i < 2; i++) {
            low[i] = std::min(low[i], std::floor(shift[i] + 1e-6));
            high[i] = std::max(high[i], std::ceil(shift[i] - 1e-6));
        }
    }
    std::sort(gaps.begin(), gaps.end());
    check_gaps(gaps);
    const double steps = std::max(1.0, std::round(height / gaps[gaps.size() / 2]));
    const DicomFile &f = s.file_of(first);
    const double dims[3] = {f.columns + high[0] - low[0], f.rows + high[1] - low[1], steps + 1};
    check_growth(dims, f, distinct.size());
    vx_geometry geo{};
    double position[3], step[3], normal[3];
    slice_normal(first, normal);
    for (int i = 0; i < 3; i++) {
        geo.dims[i] = static_cast<size_t>(dims[i]);
        position[i] = first.position[i] + low[0] * first.spacing[0] * first.along_row[i] +
                      low[1] * first.spacing[1] * first.along_column[i];
        step[i] = normal[i] * height / steps;
    }
    set_affine(first, position, step, geo);
    return geo;
}

void read_straightened(DicomWorker &worker, const DicomSeries &s, const vx_geometry &geo,
                       float *out) {
    const DicomSlice &first = s.slices.front();
    const std::vector<size_t> distinct = distinct_slices(s);
    double corner[3];
    for (int i = 0; i < 3; i++)
        corner[i] = (i < 2 ? -geo.affine[i][3] : geo.affine[i][3]) - first.position[i];
    Stack stack = {s,      geo, along(first.along_row, corner), along(first.along_column, corner),
                   worker, {}};
    check_copies(stack, distinct);
    const double length = place_of(first, s.slices[distinct.back()]).height;
    const size_t n = geo.dims[0] * geo.dims[1], depth = geo.dims[2];
    std::vector<float> below, above;
    size_t upper = 0; /* in distinct: above holds it, below the one before */
    float lowest = std::numeric_limits<float>::infinity();
    for (size_t z = 0; z < depth; z++) {
        worker.progress("read", static_cast<double>(z) / static_cast<double>(depth));
        const double height = length * static_cast<double>(z) / static_cast<double>(depth - 1);
        const auto at = [&](size_t k) { return place_of(first, s.slices[distinct[k]]).height; };
        while (upper == 0 || (at(upper) < height && upper + 1 < distinct.size())) {
            if (upper == 0) stack.read(distinct[0], above);
            std::swap(below, above);
            stack.read(distinct[++upper], above);
        }
        const double t = std::clamp((height - at(upper - 1)) / (at(upper) - at(upper - 1)), 0., 1.);
        for (size_t i = 0; i < n; i++) {
            const float a = below[i], b = above[i], near = t < 0.5 ? a : b;
            const bool both = !std::isnan(a) && !std::isnan(b);
            const double between = (1 - t) * static_cast<double>(a) + t * static_cast<double>(b);
            const float value = both ? static_cast<float>(between) : near;
            out[z * n + i] = value;
            if (value < lowest) lowest = value;
        }
    }
    for (size_t i = 0; i < n * depth; i++)
        if (std::isnan(out[i])) out[i] = lowest;
}

} // namespace vx_io
