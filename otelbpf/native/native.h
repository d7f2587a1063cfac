/* SPDX-License-Identifier: Apache-2.0 */
/* No header and no function of a C library: so one clang makes this for each architecture, and any libc will do. */
#ifndef OTELBPF_NATIVE_H
#define OTELBPF_NATIVE_H

#include <stdbool.h>
#include <stdint.h>

#define EXPORTED __attribute__((visibility("default")))

#endif
