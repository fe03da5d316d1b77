//go:build !purego

#include "textflag.h"

// The key schedule of FIPS 197, Appendix A.1.
DATA keys<>+0(SB)/8, $0xa6d2ae2816157e2b
DATA keys<>+8(SB)/8, $0x3c4fcf098815f7ab
DATA keys<>+16(SB)/8, $0xb12c548817fefaa0
DATA keys<>+24(SB)/8, $0x05766c2a3939a323
DATA keys<>+32(SB)/8, $0x43b9967af295c2f2
DATA keys<>+40(SB)/8, $0x7ff659737a803559
DATA keys<>+48(SB)/8, $0x3efe16477d47803d
DATA keys<>+56(SB)/8, $0x3b887a6d447e231e
DATA keys<>+64(SB)/8, $0x7f5b52a841a544ef
DATA keys<>+72(SB)/8, $0x00ad0bdb3b2571b6
DATA keys<>+80(SB)/8, $0x879d837cf8c6d1d4
DATA keys<>+88(SB)/8, $0xbc15f911bcb8f2ca
DATA keys<>+96(SB)/8, $0xfd3e0b117aa3886d
DATA keys<>+104(SB)/8, $0xfd9300ca4186f9db
DATA keys<>+112(SB)/8, $0xf3c95f5f0ef7544e
DATA keys<>+120(SB)/8, $0x4fdca64eb24fa684
DATA keys<>+128(SB)/8, $0xd2ba8db52173d2ea
DATA keys<>+136(SB)/8, $0x2f298d7f60f52b31
DATA keys<>+144(SB)/8, $0x21dcfa19f36677ac
DATA keys<>+152(SB)/8, $0x6e005c574129d128
DATA keys<>+160(SB)/8, $0x8925eec9a8f914d0
DATA keys<>+168(SB)/8, $0xa60c63b6c80c3fe1
GLOBL keys<>(SB), RODATA|NOPTR, $176

// func chain(x *[16]byte, n int)
// X0 is the state, X1..X11 the round keys, X12 last ⊕ first.
TEXT ·chain(SB), NOSPLIT, $0-16
	MOVQ  x+0(FP), AX
	MOVQ  n+8(FP), CX
	MOVOU (AX), X0
	MOVOU keys<>+0(SB), X1
	MOVOU keys<>+16(SB), X2
	MOVOU keys<>+32(SB), X3
	MOVOU keys<>+48(SB), X4
	MOVOU keys<>+64(SB), X5
	MOVOU keys<>+80(SB), X6
	MOVOU keys<>+96(SB), X7
	MOVOU keys<>+112(SB), X8
	MOVOU keys<>+128(SB), X9
	MOVOU keys<>+144(SB), X10
	MOVOU keys<>+160(SB), X11
	MOVO  X11, X12
	PXOR  X1, X12
	PXOR  X1, X0
	JMP   rounds

next:
	AESENCLAST X12, X0

rounds:
	AESENC X2, X0
	AESENC X3, X0
	AESENC X4, X0
	AESENC X5, X0
	AESENC X6, X0
	AESENC X7, X0
	AESENC X8, X0
	AESENC X9, X0
	AESENC X10, X0
	DECQ   CX
	JNZ    next

	AESENCLAST X11, X0
	MOVOU      X0, (AX)
	RET
