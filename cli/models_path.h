/* Where models are looked for. */
#ifndef VX_CLI_MODELS_PATH_H
#define VX_CLI_MODELS_PATH_H

/* $VOXMAMBA_MODELS, then share/voxmamba/models beside the program's folder, then the installed
 * place, and the source tree's models/ for a program in its build tree; separated by ':'. Caller
 * frees; NULL without memory. */
char *cli_model_folders(void);

#endif
