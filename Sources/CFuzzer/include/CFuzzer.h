#ifndef CFUZZER_H
#define CFUZZER_H
#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry point for programs that have a main of their own
 * (compiler-rt, FuzzerInterface.h). */
int LLVMFuzzerRunDriver(int *argc, char ***argv,
                        int (*callback)(const uint8_t *data, size_t size));

/* Runs libFuzzer over the arguments after the first, which names the target.
 * Calls `target` once for each input. Returns libFuzzer's exit status. */
int carrel_fuzz(int argc, char **argv, void (*target)(const uint8_t *data, size_t size));
#endif
