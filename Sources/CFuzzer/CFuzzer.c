#include "CFuzzer.h"

static void (*chosen)(const uint8_t *data, size_t size);

static int run_one(const uint8_t *data, size_t size)
{
	chosen(data, size);
	return 0;
}

int carrel_fuzz(int argc, char **argv, void (*target)(const uint8_t *, size_t))
{
	chosen = target;
	return LLVMFuzzerRunDriver(&argc, &argv, run_one);
}
