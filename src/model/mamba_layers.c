/* The Mamba layers of the families, on the tokens of a grid (Lumetti et al., TamingMambas, nets/;
 * Ma et al., U-Mamba). Layer norm and linear maps act on single tokens, so that flipping a
 * sequence, running a layer and flipping back is the same layer with the scan order reversed:
 * nothing is moved. */
#include "model/arch.h"

#define NORM_EPS 1e-5f

static int layer_norm(vx_builder *b, int x, const char *prefix, const char *name) {
    if (x < 0) return -1;
    const size_t c = b->graph->values[x].shape.c;
    const vx_path path = vx_path_join("%s.%s", prefix, name);
    vx_graph_layer(b->graph, "%s", path.text);
    const vx_weight gamma = vx_weight_get(b, path.text, "weight", 1, &c);
    const vx_weight beta = vx_weight_get(b, path.text, "bias", 1, &c);
    return vx_graph_layer_norm(b->graph, x, gamma, beta, NORM_EPS);
}

/* The Mamba mixer at "PREFIX.mamba" with this state size. */
static int mixer(vx_builder *b, int x, const char *prefix, size_t d_state, vx_scan_order order) {
    if (x < 0) return -1;
    const vx_network *net = b->network;
    const size_t c = b->graph->values[x].shape.c;
    /* The recipe's bounds keep these far from overflow: c <= 8192, expand <= 8, d_state <= 1024. */
    const size_t d = net->expand * c, rank = (c + 15) / 16, n = d_state;
    const size_t in_proj[] = {2 * d, c}, conv[] = {d, 1, net->d_conv}, x_proj[] = {rank + 2 * n, d};
    const size_t dt[] = {d, rank}, a_log[] = {d, n}, out_proj[] = {c, d};
    const vx_path path = vx_path_join("%s.mamba", prefix);
    vx_graph_layer(b->graph, "%s", path.text);
    const vx_mamba mamba = {
        .order = order,
        .d_inner = d,
        .d_state = n,
        .d_conv = net->d_conv,
        .dt_rank = rank,
        .in_proj = vx_weight_get(b, path.text, "in_proj.weight", 2, in_proj),
        .conv_w = vx_weight_get(b, path.text, "conv1d.weight", 3, conv),
        .conv_b = vx_weight_get(b, path.text, "conv1d.bias", 1, &d),
        .x_proj = vx_weight_get(b, path.text, "x_proj.weight", 2, x_proj),
        .dt_w = vx_weight_get(b, path.text, "dt_proj.weight", 2, dt),
        .dt_b = vx_weight_get(b, path.text, "dt_proj.bias", 1, &d),
        .a_log = vx_weight_get(b, path.text, "A_log", 2, a_log),
        .d = vx_weight_get(b, path.text, "D", 1, &d),
        .out_proj = vx_weight_get(b, path.text, "out_proj.weight", 2, out_proj),
    };
    return vx_graph_mamba(b->graph, x, &mamba);
}

/* MambaTrans: x = Mamba(LN1 x) + x; x = head(LN2 x) + x. */
static int mamba_trans(vx_builder *b, int x, const char *prefix, vx_scan_order order) {
    if (x < 0) return -1;
    const size_t c = b->graph->values[x].shape.c, w_dims[] = {c, c};
    const size_t limit = b->network->d_state_max;
    int y = layer_norm(b, x, prefix, "norm1");
    y = mixer(b, y, prefix, c < limit ? c : limit, order);
    x = vx_graph_add(b->graph, y, x, 1.0f);
    y = layer_norm(b, x, prefix, "norm2");
    const vx_path path = vx_path_join("%s.head", prefix);
    vx_graph_layer(b->graph, "%s", path.text);
    const vx_weight w = vx_weight_get(b, path.text, "weight", 2, w_dims);
    const vx_weight bias = vx_weight_get(b, path.text, "bias", 1, &c);
    y = vx_graph_linear(b->graph, y, w, bias, c);
    return vx_graph_add(b->graph, y, x, 1.0f);
}

/* PanMambaTrans: LN(f(x) + flip(b(flip x))), f and b two MambaTrans with their own weights. */
static int both_ways(vx_builder *b, int x, const char *prefix, vx_scan_order order) {
    const vx_path f = vx_path_join("%s.fwd_mamba", prefix);
    const vx_path r = vx_path_join("%s.bwd_mamba", prefix);
    const int forward = mamba_trans(b, x, f.text, order);
    order.reverse = !order.reverse;
    const int backward = mamba_trans(b, x, r.text, order);
    return layer_norm(b, vx_graph_add(b->graph, forward, backward, 1.0f), prefix, "norm");
}

/* MultiMambaTrans: the mean of four bidirectional layers on four axis orders (permutations 0, 1, 2
 * and 4 of itertools over z, y, x; slowest axis first). */
static int four_orders(vx_builder *b, int x, const char *prefix) {
    static const vx_scan_order orders[4] = {
        {{0, 1, 2}, false}, {{0, 2, 1}, false}, {{1, 0, 2}, false}, {{2, 0, 1}, false}};
    int sum = -1;
    for (int k = 0; k < 4; k++) {
        const vx_path path = vx_path_join("%s.mambas.%d", prefix, k);
        const int y = both_ways(b, x, path.text, orders[k]);
        sum = k ? vx_graph_add(b->graph, sum, y, k == 3 ? 0.25f : 1.0f) : y;
    }
    return sum;
}

int vx_mamba_layer(vx_builder *b, int x, size_t s) {
    static const vx_scan_order raster = {{0, 1, 2}, false};
    const vx_network *net = b->network;
    const vx_path path = vx_path_join("encoder.mamba_layers.%zu", s);
    const vx_path inner = vx_path_join("encoder.mamba_layers.%zu.mamba", s);
    switch (net->family) {
    case VX_MAMBA_NONE:
        return x;
    case VX_MAMBA_SEGMAMBA_SKIP:
    case VX_MAMBA_PAN_SEGMAMBA:
        x = both_ways(b, layer_norm(b, x, path.text, "norm"), inner.text, raster);
        break;
    case VX_MAMBA_SEGMAMBA:
        x = mamba_trans(b, layer_norm(b, x, path.text, "norm"), inner.text, raster);
        break;
    case VX_MAMBA_MULTI_SEGMAMBA: /* no layer norm around it */
        x = four_orders(b, x, path.text);
        break;
    case VX_MAMBA_UMAMBA_BOT: /* LN, then the bare mixer, without residual */
        if (s + 1 < net->stages) return x;
        x = mixer(b, layer_norm(b, x, path.text, "norm"), path.text, net->d_state_max, raster);
        break;
    }
    vx_graph_name(b->graph, x, "%s", path.text);
    return x;
}
