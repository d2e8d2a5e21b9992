/* A plugin of QEMU (TCG plugin API 1, QEMU 6.2 and later) that counts the ARM64 instructions of marked regions by class.
 *
 * A region begins with HINT #126 (0xd5032fdf) and ends with HINT #127 (0xd5032fff), which processors execute as NOPs.
 * Of each region, and of the whole program at its end, one JSON object on a line of its own is appended to the file that
 * out=FILE names.  With cache=on a data cache is simulated from the first HINT #125 (0xd5032fbf) on; what runs
 * before, imports above all, is not slowed down by that.  It has 32 KiB with 2 ways, then 1 MiB with 16 ways, lines of
 * 64 bytes, least recently used, no prefetching: the caches of a Cortex-A72.
 *
 *     cc -O2 -shared -fPIC counting.c -o counting.so
 *     qemu-aarch64 -plugin counting.so,out=counts.jsonl,cache=on …
 *
 * Classes follow the encoding tables of the Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ── QEMU's side, declared here: distributions do not ship the header ─────────────────────────────────────────────── */

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*vcpu_cb)(unsigned vcpu, void *data);
typedef void (*mem_cb)(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data);
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3, ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t amount);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, vcpu_cb, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, mem_cb, int flags, int kinds, void *data);
void qemu_plugin_reset(qemu_plugin_id_t, void (*)(qemu_plugin_id_t));
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *data);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

#define EXPORTED __attribute__((visibility("default")))
EXPORTED int qemu_plugin_version = 1;

/* ── classes of instructions ──────────────────────────────────────────────────────────────────────────────────────── */

#define CLASSES(_) \
  _(branch) _(load) _(load_pair) _(load_q) _(load_pair_q) _(load_struct) _(store) _(store_q) \
  _(int_alu) _(int_shift) _(int_mul) _(int_div) \
  _(fp_scalar) _(fmla_vec) _(fp_vec) _(dot) _(mlal) _(mul_vec) \
  _(simd_alu) _(simd_perm) _(simd_narrow_shift) _(simd_cvt) _(sys) _(atomic) _(other)
#define AS_NUMBER(name) CLASS_##name,
#define AS_TEXT(name) #name,
enum { CLASSES(AS_NUMBER) CLASS_COUNT };
static const char *const class_names[CLASS_COUNT] = {CLASSES(AS_TEXT)};

static uint32_t bits(uint32_t code, int lowest, int count) { return code >> lowest & ((1u << count) - 1); }

static bool is(uint32_t code, uint32_t mask, uint32_t value) { return (code & mask) == value; }

static int class_of_branch_or_system(uint32_t code) {
  bool branches = is(code, 0xfe000000, 0x54000000)      /* B.cond */
                  || is(code, 0x7c000000, 0x14000000)   /* B, BL */
                  || is(code, 0x7c000000, 0x34000000)   /* CBZ, CBNZ, TBZ, TBNZ */
                  || is(code, 0xfe000000, 0xd6000000);  /* BR, BLR, RET */
  return branches ? CLASS_branch : CLASS_sys;
}

static int class_of_load_or_store(uint32_t code) {
  bool vector = bits(code, 26, 1), load = bits(code, 22, 1);
  if (is(code, 0x3f000000, 0x08000000)) return CLASS_atomic;                                /* exclusive, ordered */
  if (is(code, 0x3b000000, 0x18000000)) return vector ? CLASS_load_q : CLASS_load;          /* literal */
  if (is(code, 0xbe000000, 0x0c000000)) return load ? CLASS_load_struct : CLASS_store_q;    /* LD1 … LD4, ST1 … ST4 */
  if (is(code, 0x3a000000, 0x28000000)) {                                                   /* pairs */
    if (vector) return load ? CLASS_load_pair_q : CLASS_store_q;
    return load ? CLASS_load_pair : CLASS_store;
  }
  if (is(code, 0x3b200c00, 0x38200000)) return CLASS_atomic;                                /* large system extensions */
  uint32_t opc = bits(code, 22, 2);
  if (vector) return opc & 1 ? CLASS_load_q : CLASS_store_q;
  return opc ? CLASS_load : CLASS_store;
}

static int class_of_register_arithmetic(uint32_t code) {
  if (is(code, 0x1f000000, 0x1b000000)) return CLASS_int_mul;
  if (is(code, 0x5fe0fc00, 0x1ac00800) || is(code, 0x5fe0fc00, 0x1ac00c00)) return CLASS_int_div;
  if (is(code, 0x5fe0f000, 0x1ac02000)) return CLASS_int_shift;
  return CLASS_int_alu;
}

static int class_of_three_same(uint32_t code) {
  uint32_t opcode = bits(code, 11, 5);
  bool unsigned_ = bits(code, 29, 1);
  if (opcode == 25) return unsigned_ ? CLASS_mul_vec : CLASS_fmla_vec;
  if (opcode >= 24) return CLASS_fp_vec;
  return opcode == 18 || opcode == 19 || opcode == 22 ? CLASS_mul_vec : CLASS_simd_alu;
}

static int class_of_three_different(uint32_t code) {
  uint32_t opcode = bits(code, 12, 4);
  return opcode >= 8 && opcode <= 14 ? CLASS_mlal : CLASS_simd_alu;
}

static int class_by_element(uint32_t code) {
  uint32_t opcode = bits(code, 12, 4);
  if (opcode == 1 || opcode == 5 || opcode == 9) return CLASS_fmla_vec;
  if (opcode == 14) return CLASS_dot;
  if (opcode == 2 || opcode == 3 || opcode == 6 || opcode == 7 || opcode == 10 || opcode == 11) return CLASS_mlal;
  return CLASS_mul_vec;
}

static int class_of_shift_by_immediate(uint32_t code) {
  uint32_t immediate = bits(code, 19, 4), opcode = bits(code, 11, 5);
  if (!immediate) return CLASS_simd_alu;  /* a modified immediate */
  if (opcode == 28 || opcode == 31) return CLASS_simd_cvt;
  return opcode >= 16 && opcode <= 20 ? CLASS_simd_narrow_shift : CLASS_simd_alu;
}

static int class_of_two_registers(uint32_t code) {
  uint32_t opcode = bits(code, 12, 5);
  if (opcode == 18 || opcode == 20) return CLASS_simd_narrow_shift;
  return opcode >= 22 ? CLASS_simd_cvt : CLASS_simd_alu;
}

static int class_of_vector(uint32_t code) {
  if (is(code, 0x5f000000, 0x1e000000) || is(code, 0x5f000000, 0x1f000000)) return CLASS_fp_scalar;
  if (is(code, 0x9f200400, 0x0e200400)) return class_of_three_same(code);
  if (is(code, 0x9f208400, 0x0e008400)) {  /* SDOT, UDOT, SMMLA … */
    uint32_t opcode = bits(code, 11, 4);
    return opcode == 2 || opcode == 4 ? CLASS_dot : CLASS_mul_vec;
  }
  if (is(code, 0x9f200c00, 0x0e200000)) return class_of_three_different(code);
  if (is(code, 0x9f000400, 0x0f000000)) return class_by_element(code);
  if (is(code, 0x9f800400, 0x0f000400)) return class_of_shift_by_immediate(code);
  if (is(code, 0x9f3e0c00, 0x0e200800)) return class_of_two_registers(code);
  bool permutes = is(code, 0xbf208c00, 0x0e000000)      /* TBL, TBX */
                  || is(code, 0xbf208c00, 0x0e000800)   /* ZIP, UZP, TRN */
                  || is(code, 0xbf208400, 0x2e000000)   /* EXT */
                  || is(code, 0x9fe08400, 0x0e000400);  /* DUP, INS, UMOV */
  return permutes ? CLASS_simd_perm : CLASS_simd_alu;
}

static int class_of(uint32_t code) {
  uint32_t op0 = bits(code, 25, 4);
  if (op0 == 10 || op0 == 11) return class_of_branch_or_system(code);
  if (op0 == 8 || op0 == 9) return bits(code, 23, 3) == 6 ? CLASS_int_shift : CLASS_int_alu;  /* immediates */
  if ((op0 & 5) == 4) return class_of_load_or_store(code);
  if ((op0 & 7) == 5) return class_of_register_arithmetic(code);
  if ((op0 & 7) == 7) return class_of_vector(code);
  return CLASS_other;
}

/* ── the data cache ───────────────────────────────────────────────────────────────────────────────────────────────── */

enum { LINE_BITS = 6, L1_SETS = 256, L1_WAYS = 2, L2_SETS = 1024, L2_WAYS = 16 };
static uint64_t l1[L1_SETS][L1_WAYS], l2[L2_SETS][L2_WAYS];  /* number of the line + 1, the latest first */
static struct { uint64_t accesses, l1d_miss, l2_miss, bytes_ld, bytes_st; } memory;

/* Tell whether a set holds a line, and make it the latest one. */
static bool holds(uint64_t *set, int ways, uint64_t line) {
  int place = 0;
  while (place < ways - 1 && set[place] != line + 1) place++;
  bool found = set[place] == line + 1;
  memmove(set + 1, set, place * sizeof *set);
  set[0] = line + 1;
  return found;
}

static void touch(uint64_t address) {
  uint64_t line = address >> LINE_BITS;
  memory.accesses++;
  if (holds(l1[line % L1_SETS], L1_WAYS, line)) return;
  memory.l1d_miss++;
  if (!holds(l2[line % L2_SETS], L2_WAYS, line)) memory.l2_miss++;
}

/* ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct block {  /* of instructions that are translated together */
  uint64_t executed;
  uint16_t of_class[CLASS_COUNT];
  struct block *next;
} block;

static block *blocks;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t at_start[CLASS_COUNT];
static bool in_region, with_cache, simulated;
static qemu_plugin_id_t own_id;
static int regions;
static char out[4096];

static void count_so_far(uint64_t *counts) {
  memset(counts, 0, CLASS_COUNT * sizeof *counts);
  pthread_mutex_lock(&blocks_lock);
  for (const block *each = blocks; each; each = each->next)
    for (int k = 0; k < CLASS_COUNT; k++) counts[k] += each->executed * each->of_class[k];
  pthread_mutex_unlock(&blocks_lock);
}

static void report(const char *region, const uint64_t *counts) {
  FILE *file = out[0] ? fopen(out, "a") : stderr;
  if (!file) return;
  uint64_t total = 0;
  for (int k = 0; k < CLASS_COUNT; k++) total += counts[k];
  fprintf(file, "{\"region\": \"%s\", \"total\": %llu", region, (unsigned long long)total);
  for (int k = 0; k < CLASS_COUNT; k++) fprintf(file, ", \"%s\": %llu", class_names[k], (unsigned long long)counts[k]);
  if (with_cache)
    fprintf(file, ", \"accesses\": %llu, \"l1d_miss\": %llu, \"l2_miss\": %llu, \"bytes_ld\": %llu, \"bytes_st\": %llu",
            (unsigned long long)memory.accesses, (unsigned long long)memory.l1d_miss,
            (unsigned long long)memory.l2_miss, (unsigned long long)memory.bytes_ld,
            (unsigned long long)memory.bytes_st);
  fprintf(file, "}\n");
  if (file != stderr) fclose(file);
}

static void on_start(unsigned vcpu, void *data) {
  (void)vcpu, (void)data;
  count_so_far(at_start);
  memset(&memory, 0, sizeof memory);
  in_region = true;
}

static void on_stop(unsigned vcpu, void *data) {
  (void)vcpu, (void)data;
  if (!in_region) return;
  in_region = false;
  uint64_t counts[CLASS_COUNT];
  char number[16];
  count_so_far(counts);
  for (int k = 0; k < CLASS_COUNT; k++) counts[k] -= at_start[k];
  snprintf(number, sizeof number, "%d", regions++);
  report(number, counts);
}

static void register_all(qemu_plugin_id_t id);

/* Have everything translated anew, now with a call for each access. */
static void on_simulate(unsigned vcpu, void *data) {
  (void)vcpu, (void)data;
  if (!with_cache || simulated) return;
  simulated = true;
  qemu_plugin_reset(own_id, register_all);
}

static void on_memory(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data) {
  (void)vcpu, (void)data;
  if (!in_region) return;
  unsigned size = 1u << qemu_plugin_mem_size_shift(info);
  if (qemu_plugin_mem_is_store(info)) memory.bytes_st += size;
  else memory.bytes_ld += size;
  touch(address);
  if ((address & ((1 << LINE_BITS) - 1)) + size > 1 << LINE_BITS) touch(address + size - 1);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *translated) {
  (void)id;
  block *made = calloc(1, sizeof *made);
  if (!made) abort();
  for (size_t k = 0; k < qemu_plugin_tb_n_insns(translated); k++) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(translated, k);
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(instruction), sizeof code);
    made->of_class[class_of(code)]++;
    if (code == 0xd5032fdf) qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_start, NO_REGISTERS, NULL);
    if (code == 0xd5032fff) qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_stop, NO_REGISTERS, NULL);
    if (code == 0xd5032fbf) qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_simulate, NO_REGISTERS, NULL);
    if (simulated) qemu_plugin_register_vcpu_mem_cb(instruction, on_memory, NO_REGISTERS, READS_AND_WRITES, NULL);
  }
  qemu_plugin_register_vcpu_tb_exec_inline(translated, ADD_U64, &made->executed, 1);
  pthread_mutex_lock(&blocks_lock);
  made->next = blocks;
  blocks = made;
  pthread_mutex_unlock(&blocks_lock);
}

static void on_exit_(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  uint64_t counts[CLASS_COUNT];
  count_so_far(counts);
  report("whole", counts);
}

static void register_all(qemu_plugin_id_t id) {
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
  (void)info;
  for (int k = 0; k < argc; k++) {
    if (!strncmp(argv[k], "out=", 4)) snprintf(out, sizeof out, "%s", argv[k] + 4);
    else if (!strcmp(argv[k], "cache=on")) with_cache = true;
  }
  own_id = id;
  register_all(id);
  return 0;
}
