//go:build !purego

#include "textflag.h"

// Key expansion (FIPS 197 §5.2). SubWord and RotWord by PSHUFB and AESENCLAST:
// with one word in all four columns, ShiftRows changes nothing, and the round
// constant enters as the key. That is shorter than AESKEYGENASSIST, which most
// processors run from microcode. Each routine clears what is left of the 240
// bytes, where a longer key may have stood.

DATA rot3<>+0(SB)/8, $0x0c0f0e0d0c0f0e0d // RotWord of word 3 in every column
DATA rot3<>+8(SB)/8, $0x0c0f0e0d0c0f0e0d
GLOBL rot3<>(SB), RODATA|NOPTR, $16

DATA rot1<>+0(SB)/8, $0x0407060504070605 // RotWord of word 1 in every column
DATA rot1<>+8(SB)/8, $0x0407060504070605
GLOBL rot1<>(SB), RODATA|NOPTR, $16

DATA rcon1<>+0(SB)/8, $0x0000000100000001
DATA rcon1<>+8(SB)/8, $0x0000000100000001
GLOBL rcon1<>(SB), RODATA|NOPTR, $16

DATA rcon9<>+0(SB)/8, $0x0000001b0000001b
DATA rcon9<>+8(SB)/8, $0x0000001b0000001b
GLOBL rcon9<>(SB), RODATA|NOPTR, $16

// reg's word i becomes the exclusive or of its words 0..i.
#define PREFIX(reg, tmp) \
	MOVO  reg, tmp \
	PSLLO $4, tmp  \
	PXOR  tmp, reg \
	PSLLO $4, tmp  \
	PXOR  tmp, reg \
	PSLLO $4, tmp  \
	PXOR  tmp, reg

// X0 holds a round key, X2 RotWord's shuffle, X3 the round constant; the next
// round key goes to X0 and memory.
#define STEP128(off) \
	MOVO       X0, X1 \
	PSHUFB     X2, X1 \
	AESENCLAST X3, X1 \
	PSLLL      $1, X3 \
	PREFIX(X0, X4)    \
	PXOR       X1, X0 \
	MOVOU      X0, off(AX)

// func expand128(keys *[240]byte, key *byte)
TEXT ·expand128(SB), NOSPLIT, $0-16
	MOVQ  keys+0(FP), AX
	MOVQ  key+8(FP), BX
	MOVOU (BX), X0
	MOVOU X0, (AX)
	MOVOU rot3<>(SB), X2
	MOVOU rcon1<>(SB), X3
	STEP128(16)
	STEP128(32)
	STEP128(48)
	STEP128(64)
	STEP128(80)
	STEP128(96)
	STEP128(112)
	STEP128(128)
	MOVOU rcon9<>(SB), X3
	STEP128(144)
	STEP128(160)
	PXOR  X1, X1
	MOVOU X1, 176(AX)
	MOVOU X1, 192(AX)
	MOVOU X1, 208(AX)
	MOVOU X1, 224(AX)
	RET

// X0 holds six words' first four, X5 the other two in its low half.
#define STEP192(off) \
	MOVO       X5, X1       \
	PSHUFB     X2, X1       \
	AESENCLAST X3, X1       \
	PSLLL      $1, X3       \
	PREFIX(X0, X4)          \
	PXOR       X1, X0       \
	MOVOU      X0, off(AX)

#define STEP192REST(off) \
	MOVO   X5, X4         \
	PSLLO  $4, X4         \
	PXOR   X4, X5         \
	PSHUFD $0xff, X0, X4  \
	PXOR   X4, X5         \
	MOVQ   X5, off(AX)

// func expand192(keys *[240]byte, key *byte)
TEXT ·expand192(SB), NOSPLIT, $0-16
	MOVQ  keys+0(FP), AX
	MOVQ  key+8(FP), BX
	MOVOU (BX), X0
	MOVQ  16(BX), X5
	MOVOU X0, (AX)
	MOVQ  X5, 16(AX)
	MOVOU rot1<>(SB), X2
	MOVOU rcon1<>(SB), X3
	STEP192(24)
	STEP192REST(40)
	STEP192(48)
	STEP192REST(64)
	STEP192(72)
	STEP192REST(88)
	STEP192(96)
	STEP192REST(112)
	STEP192(120)
	STEP192REST(136)
	STEP192(144)
	STEP192REST(160)
	STEP192(168)
	STEP192REST(184)
	STEP192(192)
	PXOR  X1, X1
	MOVOU X1, 208(AX)
	MOVOU X1, 224(AX)
	RET

// X0 and X5 hold the last two round keys. The even steps rotate and take a
// round constant, the odd ones substitute only.
#define STEP256EVEN(off) \
	MOVO       X5, X1 \
	PSHUFB     X2, X1 \
	AESENCLAST X3, X1 \
	PSLLL      $1, X3 \
	PREFIX(X0, X4)    \
	PXOR       X1, X0 \
	MOVOU      X0, off(AX)

#define STEP256ODD(off) \
	PSHUFD     $0xff, X0, X1 \
	AESENCLAST X6, X1        \
	PREFIX(X5, X4)           \
	PXOR       X1, X5        \
	MOVOU      X5, off(AX)

// func expand256(keys *[240]byte, key *byte)
TEXT ·expand256(SB), NOSPLIT, $0-16
	MOVQ  keys+0(FP), AX
	MOVQ  key+8(FP), BX
	MOVOU (BX), X0
	MOVOU 16(BX), X5
	MOVOU X0, (AX)
	MOVOU X5, 16(AX)
	MOVOU rot3<>(SB), X2
	MOVOU rcon1<>(SB), X3
	PXOR  X6, X6
	STEP256EVEN(32)
	STEP256ODD(48)
	STEP256EVEN(64)
	STEP256ODD(80)
	STEP256EVEN(96)
	STEP256ODD(112)
	STEP256EVEN(128)
	STEP256ODD(144)
	STEP256EVEN(160)
	STEP256ODD(176)
	STEP256EVEN(192)
	STEP256ODD(208)
	STEP256EVEN(224)
	RET
