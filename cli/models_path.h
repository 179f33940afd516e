/* Where models are looked for. */
#ifndef VX_CLI_MODELS_PATH_H
#define VX_CLI_MODELS_PATH_H

/* $VOXMAMBA_MODELS, then share/voxmamba/models beside the program's folder, then the installed
 * place, and the source tree's models/ for a program in its build tree; separated by ':'. share:
 * the way from the installed program's folder to the installed share/, for a program that does not
 * lie beside it; NULL for one that does. Caller frees; NULL without memory. */
char *cli_model_folders(const char *share);

#endif
