#define _GNU_SOURCE /* dladdr1 */
#include "base/self.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

static bool own_path(char path[PATH_MAX]) {
    Dl_info info;
    struct link_map *map = NULL;
    if (dladdr1((const void *)&vx_self_folder, &info, (void **)&map, RTLD_DL_LINKMAP) && map &&
        map->l_name && map->l_name[0]) {
        const size_t length = strlen(map->l_name);
        if (length >= PATH_MAX) return false;
        memcpy(path, map->l_name, length + 1);
        return true;
    }
    const ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1); /* has no l_name */
    if (length <= 0) return false;
    path[length] = '\0';
    return true;
}

bool vx_self_folder(char folder[PATH_MAX]) {
    if (!own_path(folder)) return false;
    char *slash = strrchr(folder, '/');
    folder[slash ? slash - folder + 1 : 0] = '\0';
    return true;
}
