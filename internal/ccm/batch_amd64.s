//go:build !purego

#include "textflag.h"

// Several messages abreast: see batch_amd64.go for what a step is. The lanes
// are independent, so that one lane's AESENC issues while another's is on its
// way; a lane's MAC and keystream share the load of each round key.
//
// S of the lanes is in X0..X3, T in X4..X7; counters and masks' addresses stay in memory. The keys'
// addresses are in AX, BX, CX, DX, inputs in SI, DI, R8, R9, outputs in
// R10..R13, the lanes in R14.

#define LANE     88 // size of a lane; offsets in it:
#define KEYS     0
#define IN       8
#define OUT      16
#define MASK     24
#define INSTEP   32
#define OUTSTEP  40
#define MASKSTEP 48
#define STATE    56
#define COUNTER  72

DATA swapLanes<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA swapLanes<>+8(SB)/8, $0x0001020304050607
GLOBL swapLanes<>(SB), RODATA|NOPTR, $16

DATA oneLanes<>+0(SB)/8, $1
DATA oneLanes<>+8(SB)/8, $0
GLOBL oneLanes<>(SB), RODATA|NOPTR, $16

// Go has stored state and counter in halves: they are loaded so, since a whole
// load would have to wait until the halves have left the store buffer.
#define ENTER(i, keys, in, out, s) \
	MOVQ   (KEYS+LANE*i)(R14), keys         \
	MOVQ   (IN+LANE*i)(R14), in             \
	MOVQ   (OUT+LANE*i)(R14), out           \
	MOVQ   (STATE+LANE*i)(R14), s           \
	PINSRQ $1, (STATE+8+LANE*i)(R14), s     \
	MOVQ   (COUNTER+LANE*i)(R14), X8        \
	PINSRQ $1, (COUNTER+8+LANE*i)(R14), X8  \
	MOVOU  X8, (COUNTER+LANE*i)(R14)

// Takes the counter block and whitens both.
#define BEGIN(i, keys, s, t) \
	MOVOU  (COUNTER+LANE*i)(R14), t   \
	MOVO   t, X9                      \
	PADDQ  X14, X9                    \
	MOVOU  X9, (COUNTER+LANE*i)(R14)  \
	PSHUFB X15, t                     \
	MOVOU  (keys), X8                 \
	PXOR   X8, s                      \
	PXOR   X8, t

#define ROUND(off, keys, s, t, k) \
	MOVOU  off(keys), k \
	AESENC k, s         \
	AESENC k, t

#define ROUNDS(off) \
	ROUND(off, AX, X0, X4, X8)  \
	ROUND(off, BX, X1, X5, X9)  \
	ROUND(off, CX, X2, X6, X10) \
	ROUND(off, DX, X3, X7, X11)

// The last round, then the block of data.
#define END(i, keys, in, out, s, t) \
	MOVOU      160(keys), X8               \
	AESENCLAST X8, s                       \
	AESENCLAST X8, t                       \
	MOVOU      (in), X9                    \
	ADDQ       (INSTEP+LANE*i)(R14), in    \
	MOVO       X9, X10                     \
	PXOR       t, X10                      \
	MOVOU      X10, (out)                  \
	ADDQ       (OUTSTEP+LANE*i)(R14), out  \
	MOVQ       (MASK+LANE*i)(R14), R15     \
	MOVOU      (R15), X11                  \
	ADDQ       (MASKSTEP+LANE*i)(R14), R15 \
	MOVQ       R15, (MASK+LANE*i)(R14)     \
	PAND       X11, t                      \
	PXOR       X9, t                       \
	PXOR       t, s

// func steps(l *[4]lane, n int)
TEXT ·steps(SB), NOSPLIT, $0-16
	MOVQ  l+0(FP), R14
	MOVOU swapLanes<>(SB), X15
	MOVOU oneLanes<>(SB), X14
	ENTER(0, AX, SI, R10, X0)
	ENTER(1, BX, DI, R11, X1)
	ENTER(2, CX, R8, R12, X2)
	ENTER(3, DX, R9, R13, X3)

step:
	BEGIN(0, AX, X0, X4)
	BEGIN(1, BX, X1, X5)
	BEGIN(2, CX, X2, X6)
	BEGIN(3, DX, X3, X7)
	ROUNDS(16)
	ROUNDS(32)
	ROUNDS(48)
	ROUNDS(64)
	ROUNDS(80)
	ROUNDS(96)
	ROUNDS(112)
	ROUNDS(128)
	ROUNDS(144)
	END(0, AX, SI, R10, X0, X4)
	END(1, BX, DI, R11, X1, X5)
	END(2, CX, R8, R12, X2, X6)
	END(3, DX, R9, R13, X3, X7)
	DECQ n+8(FP)
	JNZ  step

	MOVOU X0, (STATE+LANE*0)(R14)
	MOVOU X1, (STATE+LANE*1)(R14)
	MOVOU X2, (STATE+LANE*2)(R14)
	MOVOU X3, (STATE+LANE*3)(R14)
	RET
