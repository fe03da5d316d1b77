//go:build amd64 && !purego

#include "textflag.h"

// Registers: AX the round constants, DI and SI the states, R8 and R9 the
// messages, CX the blocks left. X0 is the implicit operand of SHA256RNDS2.
// Lane 0 has its state in X1 (ABEF) and X2 (CDGH) and sixteen words of message
// schedule in X3 to X6; lane 1 in X7, X8 and X9 to X12. X13 is scratch, X14
// swaps the bytes of a word.

// Four rounds of one lane (FIPS 180-4 §6.2.2, step 3).
#define ROUNDS(k, w, abef, cdgh) \
	MOVOU       k(AX), X0;          \
	PADDD       w, X0;              \
	SHA256RNDS2 X0, abef, cdgh;     \
	PSHUFD      $0x0e, X0, X0;      \
	SHA256RNDS2 X0, cdgh, abef

// The next four words of one lane's schedule (§6.2.2, step 1), into w16, from
// the sixteen before, oldest first.
#define SCHEDULE(w16, w12, w8, w4) \
	MOVO       w4, X13;            \
	PALIGNR    $4, w8, X13;        \
	SHA256MSG1 w12, w16;           \
	PADDD      X13, w16;           \
	SHA256MSG2 w4, w16

// Four rounds of both lanes.
#define BOTH(k, w, x) \
	ROUNDS(k, w, X1, X2); \
	ROUNDS(k, x, X7, X8)

// Sixteen rounds of both lanes on words that the schedule gives.
#define SIXTEEN(k) \
	SCHEDULE(X3, X4, X5, X6);      \
	SCHEDULE(X9, X10, X11, X12);   \
	BOTH(k, X3, X9);               \
	SCHEDULE(X4, X5, X6, X3);      \
	SCHEDULE(X10, X11, X12, X9);   \
	BOTH(k+16, X4, X10);           \
	SCHEDULE(X5, X6, X3, X4);      \
	SCHEDULE(X11, X12, X9, X10);   \
	BOTH(k+32, X5, X11);           \
	SCHEDULE(X6, X3, X4, X5);      \
	SCHEDULE(X12, X9, X10, X11);   \
	BOTH(k+48, X6, X12)

// A chaining value into the order of SHA256RNDS2, and back.
#define IN(from, abef, cdgh) \
	MOVOU   (from), abef;      \
	MOVOU   16(from), cdgh;    \
	PSHUFD  $0xb1, abef, abef; \
	PSHUFD  $0x1b, cdgh, cdgh; \
	MOVO    abef, X13;         \
	PALIGNR $8, cdgh, abef;    \
	PBLENDW $0xf0, X13, cdgh

#define OUT(to, abef, cdgh) \
	PSHUFD  $0x1b, abef, abef; \
	PSHUFD  $0xb1, cdgh, cdgh; \
	MOVO    abef, X13;         \
	PBLENDW $0xf0, cdgh, abef; \
	PALIGNR $8, X13, cdgh;     \
	MOVOU   abef, (to);        \
	MOVOU   cdgh, 16(to)

// Four words of message.
#define WORDS(at, from, w) \
	MOVOU  at(from), w; \
	PSHUFB X14, w

// func blocks(a, b *State, p, q *byte, n int)
TEXT ·blocks(SB), NOSPLIT, $64-40
	MOVQ  a+0(FP), DI
	MOVQ  b+8(FP), SI
	MOVQ  p+16(FP), R8
	MOVQ  q+24(FP), R9
	MOVQ  n+32(FP), CX
	LEAQ  constants<>(SB), AX
	MOVOU swap<>(SB), X14
	IN(DI, X1, X2)
	IN(SI, X7, X8)

next:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X7, 32(SP)
	MOVOU X8, 48(SP)
	WORDS(0, R8, X3)
	WORDS(0, R9, X9)
	BOTH(0, X3, X9)
	WORDS(16, R8, X4)
	WORDS(16, R9, X10)
	BOTH(16, X4, X10)
	WORDS(32, R8, X5)
	WORDS(32, R9, X11)
	BOTH(32, X5, X11)
	WORDS(48, R8, X6)
	WORDS(48, R9, X12)
	BOTH(48, X6, X12)
	SIXTEEN(64)
	SIXTEEN(128)
	SIXTEEN(192)

	// Step 4: the chaining value is added.
	MOVOU 0(SP), X0
	PADDD X0, X1
	MOVOU 16(SP), X0
	PADDD X0, X2
	MOVOU 32(SP), X0
	PADDD X0, X7
	MOVOU 48(SP), X0
	PADDD X0, X8
	ADDQ  $64, R8
	ADDQ  $64, R9
	DECQ  CX
	JNZ   next

	OUT(DI, X1, X2)
	OUT(SI, X7, X8)
	RET

// Sixteen rounds of lane 0 alone.
#define ALONE(k) \
	SCHEDULE(X3, X4, X5, X6);    \
	ROUNDS(k, X3, X1, X2);       \
	SCHEDULE(X4, X5, X6, X3);    \
	ROUNDS(k+16, X4, X1, X2);    \
	SCHEDULE(X5, X6, X3, X4);    \
	ROUNDS(k+32, X5, X1, X2);    \
	SCHEDULE(X6, X3, X4, X5);    \
	ROUNDS(k+48, X6, X1, X2)

// func alone(a *State, p *byte, n int)
TEXT ·alone(SB), NOSPLIT, $0-24
	MOVQ  a+0(FP), DI
	MOVQ  p+8(FP), R8
	MOVQ  n+16(FP), CX
	LEAQ  constants<>(SB), AX
	MOVOU swap<>(SB), X14
	IN(DI, X1, X2)

next:
	MOVO  X1, X7
	MOVO  X2, X8
	WORDS(0, R8, X3)
	ROUNDS(0, X3, X1, X2)
	WORDS(16, R8, X4)
	ROUNDS(16, X4, X1, X2)
	WORDS(32, R8, X5)
	ROUNDS(32, X5, X1, X2)
	WORDS(48, R8, X6)
	ROUNDS(48, X6, X1, X2)
	ALONE(64)
	ALONE(128)
	ALONE(192)
	PADDD X7, X1
	PADDD X8, X2
	ADDQ  $64, R8
	DECQ  CX
	JNZ   next

	OUT(DI, X1, X2)
	RET

// func cpuid(leaf uint32) (eax, ebx, ecx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-20
	MOVL leaf+0(FP), AX
	XORL CX, CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL BX, ebx+12(FP)
	MOVL CX, ecx+16(FP)
	RET

DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// The round constants (§4.2.2).
DATA constants<>+0(SB)/4, $0x428a2f98
DATA constants<>+4(SB)/4, $0x71374491
DATA constants<>+8(SB)/4, $0xb5c0fbcf
DATA constants<>+12(SB)/4, $0xe9b5dba5
DATA constants<>+16(SB)/4, $0x3956c25b
DATA constants<>+20(SB)/4, $0x59f111f1
DATA constants<>+24(SB)/4, $0x923f82a4
DATA constants<>+28(SB)/4, $0xab1c5ed5
DATA constants<>+32(SB)/4, $0xd807aa98
DATA constants<>+36(SB)/4, $0x12835b01
DATA constants<>+40(SB)/4, $0x243185be
DATA constants<>+44(SB)/4, $0x550c7dc3
DATA constants<>+48(SB)/4, $0x72be5d74
DATA constants<>+52(SB)/4, $0x80deb1fe
DATA constants<>+56(SB)/4, $0x9bdc06a7
DATA constants<>+60(SB)/4, $0xc19bf174
DATA constants<>+64(SB)/4, $0xe49b69c1
DATA constants<>+68(SB)/4, $0xefbe4786
DATA constants<>+72(SB)/4, $0x0fc19dc6
DATA constants<>+76(SB)/4, $0x240ca1cc
DATA constants<>+80(SB)/4, $0x2de92c6f
DATA constants<>+84(SB)/4, $0x4a7484aa
DATA constants<>+88(SB)/4, $0x5cb0a9dc
DATA constants<>+92(SB)/4, $0x76f988da
DATA constants<>+96(SB)/4, $0x983e5152
DATA constants<>+100(SB)/4, $0xa831c66d
DATA constants<>+104(SB)/4, $0xb00327c8
DATA constants<>+108(SB)/4, $0xbf597fc7
DATA constants<>+112(SB)/4, $0xc6e00bf3
DATA constants<>+116(SB)/4, $0xd5a79147
DATA constants<>+120(SB)/4, $0x06ca6351
DATA constants<>+124(SB)/4, $0x14292967
DATA constants<>+128(SB)/4, $0x27b70a85
DATA constants<>+132(SB)/4, $0x2e1b2138
DATA constants<>+136(SB)/4, $0x4d2c6dfc
DATA constants<>+140(SB)/4, $0x53380d13
DATA constants<>+144(SB)/4, $0x650a7354
DATA constants<>+148(SB)/4, $0x766a0abb
DATA constants<>+152(SB)/4, $0x81c2c92e
DATA constants<>+156(SB)/4, $0x92722c85
DATA constants<>+160(SB)/4, $0xa2bfe8a1
DATA constants<>+164(SB)/4, $0xa81a664b
DATA constants<>+168(SB)/4, $0xc24b8b70
DATA constants<>+172(SB)/4, $0xc76c51a3
DATA constants<>+176(SB)/4, $0xd192e819
DATA constants<>+180(SB)/4, $0xd6990624
DATA constants<>+184(SB)/4, $0xf40e3585
DATA constants<>+188(SB)/4, $0x106aa070
DATA constants<>+192(SB)/4, $0x19a4c116
DATA constants<>+196(SB)/4, $0x1e376c08
DATA constants<>+200(SB)/4, $0x2748774c
DATA constants<>+204(SB)/4, $0x34b0bcb5
DATA constants<>+208(SB)/4, $0x391c0cb3
DATA constants<>+212(SB)/4, $0x4ed8aa4a
DATA constants<>+216(SB)/4, $0x5b9cca4f
DATA constants<>+220(SB)/4, $0x682e6ff3
DATA constants<>+224(SB)/4, $0x748f82ee
DATA constants<>+228(SB)/4, $0x78a5636f
DATA constants<>+232(SB)/4, $0x84c87814
DATA constants<>+236(SB)/4, $0x8cc70208
DATA constants<>+240(SB)/4, $0x90befffa
DATA constants<>+244(SB)/4, $0xa4506ceb
DATA constants<>+248(SB)/4, $0xbef9a3f7
DATA constants<>+252(SB)/4, $0xc67178f2
GLOBL constants<>(SB), RODATA|NOPTR, $256
