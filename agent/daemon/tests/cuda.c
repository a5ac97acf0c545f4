/* CUDA's driver, pretended: DEVICES of them, which answer what the kernels of src/calibrate/gpu would, and take a
   microsecond for each round of theirs. WRONG: one thread's answer is another. */
#ifndef DEVICES
#define DEVICES 1
#endif
#ifndef WRONG
#define WRONG 0
#endif
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>
static int retained = 0;
int cuInit(unsigned f) { return f; }
int cuDeviceGetCount(int *n) { *n = DEVICES; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetUuid(unsigned char *u, int d) { for (int i = 0; i < 16; i++) u[i] = i + d; return 0; }
int cuDeviceGetName(char *t, int n, int d) { strncpy(t, "Pretended GPU", n); return 0; }
int cuDeviceTotalMem_v2(size_t *b, int d) { *b = 40UL << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 16 ? 4 : a == 75 ? (d ? 7 : 8) : 0; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &retained; retained++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return --retained; }
int cuCtxSetCurrent(void *c) { return c != &retained; }
int cuModuleLoadData(void **m, const char *t) { *m = (void *)(strstr(t, "bf16.bf16") ? 2L : strstr(t, "s8.s8") ? 3L : 1L);
  return strncmp(t, ".version", 8) != 0; }
int cuModuleGetFunction(void **f, void *m, const char *n) { *f = m; return strcmp(n, "work"); }
int cuMemAlloc_v2(void **p, size_t n) { *p = malloc(n); return *p ? 0 : 2; }
int cuMemFree_v2(void *p) { free(p); return 0; }
int cuMemcpyDtoH_v2(void *to, void *from, size_t n) { memcpy(to, from, n); return 0; }
int cuMemcpyDtoDAsync_v2(void *to, void *from, size_t n, void *s) { usleep(2000); return s != 0; }
int cuLaunchKernel(void *f, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *s, void **args, void **extra) {
  unsigned *out = *(unsigned **)args[0], rounds = *(unsigned *)args[1], ones = *(unsigned *)args[2], answer;
  float sum;
  switch ((long)f) {
    case 1: if (ones != 0x3f800000) return 1; sum = 4 * rounds + 15; memcpy(&answer, &sum, 4); break;
    case 2: if (ones != 0x3f803f80) return 1; sum = 32 * rounds + 3; memcpy(&answer, &sum, 4); break;
    default: if (ones != 0x01010101) return 1; answer = 64 * rounds + 3; }
  for (unsigned i = 0; i < x * bx; i++) out[i] = answer;
  if (WRONG) out[x * bx - 1]++;
  usleep(rounds);
  return y * z * by * bz != 1; }
int cuEventCreate(void **e, unsigned f) { *e = malloc(sizeof(struct timespec)); return f; }
int cuEventRecord(void *e, void *s) { return clock_gettime(CLOCK_MONOTONIC, e); }
int cuEventSynchronize(void *e) { return 0; }
int cuEventElapsedTime(float *ms, void *a, void *b) { struct timespec *x = a, *y = b;
  *ms = (y->tv_sec - x->tv_sec) * 1e3f + (y->tv_nsec - x->tv_nsec) / 1e6f; return 0; }
