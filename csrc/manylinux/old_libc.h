// Included first in every file of a manylinux wheel (setup.py), which must load on systems whose C
// library is older than the one it is compiled with: glibc 2.28, AlmaLinux 8 and Debian 10. These
// functions got new versions in glibc 2.29, which differ in how they report errors (errno) only.
#pragma once

#if defined(__x86_64__)
#define FIRST_GLIBC "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST_GLIBC "GLIBC_2.17"
#else
#error "the first version of glibc on this processor is not written down here"
#endif

__asm__(".symver exp, exp@" FIRST_GLIBC);
__asm__(".symver log, log@" FIRST_GLIBC);
__asm__(".symver pow, pow@" FIRST_GLIBC);
