//go:build !purego

#include "textflag.h"

// AES-CCM in one pass.
//
// The CBC-MAC is a chain: block i cannot start before block i-1 has left the
// last AES round, so a message costs (1 + blocks) × rounds × latency of AESENC
// and nothing can be done about it. What can be done is to let everything else
// disappear in the chain's shadow. The processor needs one issue slot in eight
// for the chain; the keystream of the next block takes another, interleaved
// round by round so that both use a round key while it is loaded.
//
// The chain itself is cut to the bare rounds. A MAC step would be
//
//	s = E(s ⊕ block):   s ⊕= block; s ⊕= k0; rounds; last round with kN
//
// and since AESENCLAST ends in an exclusive or with its operand, the step's
// end and the next step's beginning melt into one instruction:
//
//	s = AESENCLAST(s, kN ⊕ k0 ⊕ next block)
//
// so that S always holds a block that has been whitened already, and kN ⊕ k0
// ⊕ next block is made off the chain.
//
// Round keys are read from memory (loads are free here); the rounds before
// the last ten of AES-192 and AES-256 come first, so that all key sizes share
// one body: LAST points ten round keys before the last one.
//
// Only SSE4.1, SSSE3 and AES-NI are used. No branch and no address depends on
// a key or on data; lengths are public.

// Registers throughout.
#define KEYS   AX
#define OUT    DI
#define IN     SI
#define LEN    CX  // bytes of data left
#define ROUNDS DX
#define LAST   R8
#define AAD    R9
#define AADLEN R10 // bytes of additional data left
#define OPEN   R11
#define R      R12
#define S      X0  // MAC state, whitened
#define T      X1  // keystream in the making, then keystream of the next block
#define S0     X2  // E(A_0), kept for the tag
#define K      X3  // a round key
#define D      X4  // data
#define E      X5
#define CTR    X8  // A_i with its halves as integers
#define ONE    X9
#define SWAP   X10 // byte reversal
#define K0     X11 // first round key
#define KN     X12 // last round key
#define KX     X13 // KN ⊕ K0

DATA swap<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA swap<>+8(SB)/8, $0x0001020304050607
GLOBL swap<>(SB), RODATA|NOPTR, $16

DATA one<>+0(SB)/8, $1
DATA one<>+8(SB)/8, $0
GLOBL one<>(SB), RODATA|NOPTR, $16

// Sixteen bytes of ones, then of zeros: loaded from 16 - n on, n ones.
DATA mask<>+0(SB)/8, $0xffffffffffffffff
DATA mask<>+8(SB)/8, $0xffffffffffffffff
DATA mask<>+16(SB)/8, $0
DATA mask<>+24(SB)/8, $0
GLOBL mask<>(SB), RODATA|NOPTR, $32

// PSHUFB's identity, then its zeros: loaded from 16 - n on, the last n bytes of
// a block move to the front.
DATA front<>+0(SB)/8, $0x0706050403020100
DATA front<>+8(SB)/8, $0x0f0e0d0c0b0a0908
DATA front<>+16(SB)/8, $0x8080808080808080
DATA front<>+24(SB)/8, $0x8080808080808080
GLOBL front<>(SB), RODATA|NOPTR, $32

// One middle round of one, two or three blocks.
#define ROUND1(key) \
	MOVOU  key, K \
	AESENC K, S

#define ROUND2(key) \
	MOVOU  key, K \
	AESENC K, S   \
	AESENC K, T

#define ROUND3(key) \
	MOVOU  key, K \
	AESENC K, S   \
	AESENC K, S0  \
	AESENC K, T

// All middle rounds, for any key size. The label is the macro's own.
#define MIDDLE(ROUND, common) \
	CMPQ ROUNDS, $10 \
	JEQ  common      \
	ROUND(16(KEYS))  \
	ROUND(32(KEYS))  \
	CMPQ ROUNDS, $12 \
	JEQ  common      \
	ROUND(48(KEYS))  \
	ROUND(64(KEYS))  \
common:              \
	ROUND(16(LAST))  \
	ROUND(32(LAST))  \
	ROUND(48(LAST))  \
	ROUND(64(LAST))  \
	ROUND(80(LAST))  \
	ROUND(96(LAST))  \
	ROUND(112(LAST)) \
	ROUND(128(LAST)) \
	ROUND(144(LAST))

// The next counter block, whitened, into T.
#define COUNTER \
	PADDQ  ONE, CTR \
	MOVO   CTR, T   \
	PSHUFB SWAP, T  \
	PXOR   K0, T

// The first n bytes (1..15) at p into D, padded with zeros. Sixteen bytes are
// read from p on or, where they might run into an unmapped page, up to p + n;
// what does not belong is dropped. Clobbers R and E.
#define LOADPART(p, n, edge, loaded) \
	MOVL   p, R                \
	ANDL   $0xfff, R           \
	CMPL   R, $0xff0           \
	JHI    edge                \
	MOVOU  (p), D              \
	LEAQ   mask<>+16(SB), R    \
	SUBQ   n, R                \
	MOVOU  (R), E              \
	PAND   E, D                \
	JMP    loaded              \
edge:                          \
	MOVOU  -16(p)(n*1), D      \
	LEAQ   front<>+16(SB), R   \
	SUBQ   n, R                \
	MOVOU  (R), E              \
	PSHUFB E, D                \
loaded:

// Absorb the block in D into the MAC: the last round of the step before, this
// step's whitening, its middle rounds. S thereby always waits before a last
// round.
#define ABSORB(ROUND, common) \
	PXOR       KX, D \
	AESENCLAST D, S  \
	MIDDLE(ROUND, common)

// func pass(keys *[240]byte, rounds uint64, b0Hi, b0Lo, a0Hi, a0Lo uint64,
//	aadLo, aadHi uint64, aad *byte, aadLen int,
//	out, in *byte, n int, open uint64) (tagLo, tagHi uint64)
TEXT ·pass(SB), NOSPLIT, $0-128
	MOVQ  keys+0(FP), KEYS
	MOVQ  rounds+8(FP), ROUNDS
	MOVQ  ROUNDS, LAST
	SHLQ  $4, LAST
	LEAQ  -160(KEYS)(LAST*1), LAST
	MOVOU (KEYS), K0
	MOVOU 160(LAST), KN
	MOVO  KN, KX
	PXOR  K0, KX
	MOVOU swap<>(SB), SWAP
	MOVOU one<>(SB), ONE

	// B_0, A_0 and A_1 together: S, S0 and T (RFC 3610 §2.2, §2.3).
	MOVQ   b0Lo+24(FP), S
	PINSRQ $1, b0Hi+16(FP), S
	PSHUFB SWAP, S
	PXOR   K0, S
	MOVQ   a0Lo+40(FP), CTR
	PINSRQ $1, a0Hi+32(FP), CTR
	MOVO   CTR, S0
	PSHUFB SWAP, S0
	PXOR   K0, S0
	COUNTER
	MIDDLE(ROUND3, header)
	AESENCLAST KN, S0
	AESENCLAST KN, T

	MOVQ out+80(FP), OUT
	MOVQ in+88(FP), IN
	MOVQ n+96(FP), LEN
	MOVQ open+104(FP), OPEN

	// The additional data: its first block, which comes ready with the length,
	// then whole blocks, then what is left. A negative length: there is none.
	MOVQ   aadLen+72(FP), AADLEN
	TESTQ  AADLEN, AADLEN
	JLT    data
	MOVQ   aad+64(FP), AAD
	MOVQ   aadLo+48(FP), D
	PINSRQ $1, aadHi+56(FP), D
	ABSORB(ROUND1, aadFirst)
	SUBQ   $16, AADLEN
	JLT    aadEnd

aadLoop:
	MOVOU (AAD), D
	ADDQ  $16, AAD
	ABSORB(ROUND1, aadBlock)
	SUBQ  $16, AADLEN
	JGE   aadLoop

aadEnd:
	ADDQ $16, AADLEN
	JZ   data
	LOADPART(AAD, AADLEN, aadEdge, aadLoaded)
	ABSORB(ROUND1, aadLast)

	// Whole blocks of data. T is the keystream of this block and, after the
	// step, of the next. The input is read before the output is written: they
	// may be the same memory.
data:
	SUBQ  $16, LEN
	JLT   tail
	TESTQ OPEN, OPEN
	JNZ   openLoop

sealLoop:
	MOVOU      (IN), D
	ADDQ       $16, IN
	PXOR       D, T
	MOVOU      T, (OUT)
	ADDQ       $16, OUT
	COUNTER
	ABSORB(ROUND2, sealBlock)
	AESENCLAST KN, T
	SUBQ       $16, LEN
	JGE        sealLoop
	JMP        tail

openLoop:
	MOVOU      (IN), D
	ADDQ       $16, IN
	PXOR       T, D
	MOVOU      D, (OUT)
	ADDQ       $16, OUT
	COUNTER
	ABSORB(ROUND2, openBlock)
	AESENCLAST KN, T
	SUBQ       $16, LEN
	JGE        openLoop

	// What does not fill a block: the keystream is cut, so that the padding
	// stays zero whichever of the two forms the MAC takes.
tail:
	ADDQ  $16, LEN
	JZ    tag
	LOADPART(IN, LEN, tailEdge, tailLoaded)
	LEAQ  mask<>+16(SB), R
	SUBQ  LEN, R
	MOVOU (R), E
	PAND  E, T
	PXOR  D, T
	TESTQ OPEN, OPEN
	JZ    tailAbsorb
	MOVO  T, D

tailAbsorb:
	ABSORB(ROUND1, tailBlock)

	// Store LEN bytes of T: 8, 4, 2, 1.
	TESTQ $8, LEN
	JZ    store4
	MOVQ  T, (OUT)
	PSRLO $8, T
	ADDQ  $8, OUT

store4:
	MOVQ  T, R
	TESTQ $4, LEN
	JZ    store2
	MOVL  R, (OUT)
	SHRQ  $32, R
	ADDQ  $4, OUT

store2:
	TESTQ $2, LEN
	JZ    store1
	MOVW  R, (OUT)
	SHRQ  $16, R
	ADDQ  $2, OUT

store1:
	TESTQ $1, LEN
	JZ    tag
	MOVB  R, (OUT)

tag:
	AESENCLAST KN, S
	PXOR       S0, S
	MOVQ       S, tagLo+112(FP)
	PEXTRQ     $1, S, tagHi+120(FP)
	RET
