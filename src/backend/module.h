/* Between the library and a backend that is loaded at run time. */
#ifndef VX_BACKEND_MODULE_H
#define VX_BACKEND_MODULE_H

#include "backend/backend.h"

/* Raised with every change of backend.h, graph.h or what they include: the library and its module
 * come from one build, and this number catches a mixture. */
#define VX_MODULE_ABI 4u

/* The only symbol of a module: its backend, or NULL when the library's abi is not the module's. The
 * table lives as long as the module is loaded. */
#define VX_MODULE_SYMBOL "vx_backend_module"
typedef const vx_backend *(*vx_module_entry)(unsigned abi);

#endif
