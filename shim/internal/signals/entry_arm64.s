#include "textflag.h"

// The comments are in entry_amd64.s.
TEXT secret_init_entry(SB),NOSPLIT|NOFRAME,$0
	MOVD	·second+16(SB), R4
	CBZ	R4, first
	MOVD	0(RSP), R5
	CMP	$2, R5
	BLT	first
	MOVD	16(RSP), R5
	MOVD	$0x7369767265707573, R6
	MOVD	0(R5), R7
	CMP	R6, R7
	BNE	first
	MOVHU	8(R5), R7
	CMP	$0x65, R7
	BNE	first
	JMP	(R4)
first:
	MOVD	$135, R8 // rt_sigprocmask
	MOVD	$0, R0 // SIG_BLOCK
	MOVD	$·held(SB), R1
	MOVD	$·startMask(SB), R2
	MOVD	$8, R3
	SVC
	MOVD	$1, R19
	MOVD	$0, R20
signal:
	MOVD	$134, R8 // rt_sigaction
	MOVD	R19, R0
	MOVD	$0, R1
	MOVD	$·startAction(SB), R2
	MOVD	$8, R3
	SVC
	MOVD	·startAction(SB), R4
	CMP	$1, R4 // SIG_IGN
	BNE	next
	SUB	$1, R19, R5
	MOVD	$1, R6
	LSL	R5, R6, R6
	ORR	R6, R20, R20
next:
	ADD	$1, R19, R19
	CMP	$65, R19
	BNE	signal
	MOVD	R20, ·startIgnored(SB)
	MOVD	$0, R19
	MOVD	$0, R20
descriptor:
	MOVD	$25, R8 // fcntl
	MOVD	R19, R0
	MOVD	$1, R1 // F_GETFD
	SVC
	CMP	$0, R0
	BGE	open
	MOVD	$1, R6
	LSL	R19, R6, R6
	ORR	R6, R20, R20
open:
	ADD	$1, R19, R19
	CMP	$3, R19
	BNE	descriptor
	MOVD	R20, ·startClosed(SB)
	MOVD	$1, R6
	MOVB	R6, ·entered(SB)
	B	_rt0_arm64_linux(SB)

TEXT ·outside(SB),NOSPLIT|NOFRAME,$0
	MOVW	8(R1), R4
	CMPW	$0, R4
	BGT	runtime
	MOVW	16(R1), R4
	MOVW	·self(SB), R5
	CMPW	R4, R5
	BEQ	runtime
	MOVD	$64, R8 // write
	MOVW	·pipe(SB), R0
	MOVD	$1, R2
	SVC
	RET
runtime:
	MOVD	·runtimeHandler(SB), R4
	JMP	(R4)

TEXT ·end(SB),NOSPLIT|NOFRAME,$0
	ADD	$128, R0, R0
	MOVD	$94, R8 // exit_group
	SVC
	BRK

TEXT ·outsideHandler(SB),NOSPLIT,$0-8
	MOVD	$·outside(SB), R0
	MOVD	R0, ret+0(FP)
	RET

TEXT ·endHandler(SB),NOSPLIT,$0-8
	MOVD	$·end(SB), R0
	MOVD	R0, ret+0(FP)
	RET
