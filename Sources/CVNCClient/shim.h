#include <rfb/rfbclient.h>

/* libvncclient logs each connection to standard error unless told not to; the
 * switch is a global variable, which Swift may not touch. */
static inline void carrel_silence_vncclient(void)
{
	rfbEnableClientLogging = FALSE;
}
