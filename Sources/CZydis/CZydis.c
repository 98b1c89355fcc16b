#include "CZydis.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static struct {
  __typeof__(ZydisDecoderInit) *init;
  __typeof__(ZydisDecoderDecodeFull) *decode;
  __typeof__(ZydisMnemonicGetString) *name;
  __typeof__(ZydisRegisterGetClass) *register_class;
} lib;

static int is_loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
  void *library = dlopen("libZydis.so.4.0", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return;
  *(void **)&lib.init = dlsym(library, "ZydisDecoderInit");
  *(void **)&lib.decode = dlsym(library, "ZydisDecoderDecodeFull");
  *(void **)&lib.name = dlsym(library, "ZydisMnemonicGetString");
  *(void **)&lib.register_class = dlsym(library, "ZydisRegisterGetClass");
  is_loaded = lib.init && lib.decode && lib.name && lib.register_class;
}

int czydis_is_available(void) {
  pthread_once(&once, load);
  return is_loaded;
}

const char *czydis_mnemonic_name(uint16_t mnemonic) {
  return czydis_is_available() ? lib.name((ZydisMnemonic)mnemonic) : NULL;
}

// The number of a general register of any width, or 0xFF.
static uint8_t general_number(ZydisRegister value, uint8_t *high) {
  *high = 0;
  if (value >= ZYDIS_REGISTER_AL && value <= ZYDIS_REGISTER_BL) return value - ZYDIS_REGISTER_AL;
  if (value >= ZYDIS_REGISTER_AH && value <= ZYDIS_REGISTER_BH) {
    *high = 1;
    return value - ZYDIS_REGISTER_AH + 4;
  }
  if (value >= ZYDIS_REGISTER_SPL && value <= ZYDIS_REGISTER_R15B)
    return value - ZYDIS_REGISTER_SPL + 4;
  if (value >= ZYDIS_REGISTER_AX && value <= ZYDIS_REGISTER_R15W) return value - ZYDIS_REGISTER_AX;
  if (value >= ZYDIS_REGISTER_EAX && value <= ZYDIS_REGISTER_R15D)
    return value - ZYDIS_REGISTER_EAX;
  if (value >= ZYDIS_REGISTER_RAX && value <= ZYDIS_REGISTER_R15)
    return value - ZYDIS_REGISTER_RAX;
  return 0xFF;
}

static uint8_t address_register(ZydisRegister value) {
  if (value == ZYDIS_REGISTER_RIP || value == ZYDIS_REGISTER_EIP) return 16;
  uint8_t high;
  return general_number(value, &high);
}

static void fill_register(ZydisRegister value, struct czydis_operand *out) {
  out->kind = CZYDIS_OTHER;
  out->number = general_number(value, &out->high);
  if (out->number != 0xFF) {
    out->kind = CZYDIS_GENERAL;
  } else if (value >= ZYDIS_REGISTER_XMM0 && value <= ZYDIS_REGISTER_XMM15) {
    out->kind = CZYDIS_VECTOR;
    out->number = value - ZYDIS_REGISTER_XMM0;
  } else if (value >= ZYDIS_REGISTER_YMM0 && value <= ZYDIS_REGISTER_YMM15) {
    out->kind = CZYDIS_VECTOR;
    out->number = value - ZYDIS_REGISTER_YMM0;
  }
}

static void fill(const ZydisDecodedOperand *operand, struct czydis_operand *out) {
  memset(out, 0, sizeof *out);
  out->bits = operand->size;
  switch (operand->type) {
  case ZYDIS_OPERAND_TYPE_REGISTER: fill_register(operand->reg.value, out); break;
  case ZYDIS_OPERAND_TYPE_MEMORY:
    out->kind = CZYDIS_MEMORY;
    out->segment = operand->mem.segment >= ZYDIS_REGISTER_ES
            && operand->mem.segment <= ZYDIS_REGISTER_GS
        ? operand->mem.segment - ZYDIS_REGISTER_ES : 3;
    out->base = address_register(operand->mem.base);
    out->index = address_register(operand->mem.index);
    out->scale = operand->mem.scale;
    out->displacement = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
    break;
  case ZYDIS_OPERAND_TYPE_IMMEDIATE:
    out->kind = CZYDIS_IMMEDIATE;
    out->immediate = operand->imm.value.u;
    break;
  default: out->kind = CZYDIS_OTHER; break;
  }
}

int czydis_decode(
    int mode, const uint8_t *bytes, size_t count, struct czydis_instruction *instruction) {
  if (!czydis_is_available()) return CZYDIS_TRUNCATED;
  ZydisDecoder decoder;
  ZyanStatus status;
  switch (mode) {
  case 64:
    status = lib.init(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    break;
  case 32:
    status = lib.init(&decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    break;
  case 16:
    status = lib.init(&decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
    break;
  default:
    status = lib.init(&decoder, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
    break;
  }
  if (!ZYAN_SUCCESS(status)) return CZYDIS_TRUNCATED;
  ZydisDecodedInstruction decoded;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  status = lib.decode(&decoder, bytes, count, &decoded, operands);
  if (status == ZYDIS_STATUS_NO_MORE_DATA) return CZYDIS_TRUNCATED;
  if (!ZYAN_SUCCESS(status)) return CZYDIS_INVALID;
  memset(instruction, 0, sizeof *instruction);
  instruction->mnemonic = decoded.mnemonic;
  instruction->length = decoded.length;
  instruction->operand_width = decoded.operand_width;
  instruction->address_width = decoded.address_width;
  instruction->opcode = decoded.opcode;
  if (decoded.attributes & ZYDIS_ATTRIB_HAS_MODRM)
    instruction->modrm =
        decoded.raw.modrm.mod << 6 | decoded.raw.modrm.reg << 3 | decoded.raw.modrm.rm;
  instruction->has_lock = (decoded.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
  if (decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
    instruction->vector_length = decoded.avx.vector_length / 128 ? decoded.avx.vector_length / 128 : 1;
  for (int index = 0; index < decoded.operand_count_visible; index++) {
    if (instruction->operand_count == 4) break;
    fill(&operands[index], &instruction->operands[instruction->operand_count++]);
  }
  return CZYDIS_WHOLE;
}
