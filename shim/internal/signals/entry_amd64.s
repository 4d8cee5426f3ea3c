#include "textflag.h"

// secret_init_entry is where the kernel starts the program, when the linker was
// told so (-E in the Makefile). It notes what the Go runtime is about to
// change, and blocks the signals that would be lost before os/signal listens:
// until then the default action holds, which is none for PID 1 (pid_namespaces(7)).
//
// Where another program is joined to this one, which is PID 1 alone, and the
// first argument is "supervise", it is that program's turn.
TEXT secret_init_entry(SB),NOSPLIT|NOFRAME,$0
	MOVQ	·second+16(SB), AX
	TESTQ	AX, AX
	JEQ	first
	CMPQ	0(SP), $2 // argc
	JLT	first
	MOVQ	16(SP), CX // argv[1]
	MOVQ	$0x7369767265707573, DX // supervis
	CMPQ	0(CX), DX
	JNE	first
	CMPW	8(CX), $0x65 // e, and the end
	JNE	first
	JMP	AX
first:
	MOVL	$14, AX // rt_sigprocmask
	XORL	DI, DI // SIG_BLOCK
	LEAQ	·held(SB), SI
	LEAQ	·startMask(SB), DX
	MOVL	$8, R10
	SYSCALL
	MOVL	$1, BX
signal:
	MOVL	$13, AX // rt_sigaction
	MOVL	BX, DI
	XORL	SI, SI
	LEAQ	·startAction(SB), DX
	MOVL	$8, R10
	SYSCALL
	CMPQ	·startAction(SB), $1 // SIG_IGN
	JNE	next
	LEAQ	-1(BX), CX
	BTSQ	CX, ·startIgnored(SB)
next:
	INCL	BX
	CMPL	BX, $65
	JNE	signal
	XORL	BX, BX
descriptor:
	MOVL	$72, AX // fcntl
	MOVL	BX, DI
	MOVL	$1, SI // F_GETFD
	SYSCALL
	TESTQ	AX, AX
	JGE	open
	BTSQ	BX, ·startClosed(SB)
open:
	INCL	BX
	CMPL	BX, $3
	JNE	descriptor
	MOVB	$1, ·entered(SB)
	JMP	_rt0_amd64_linux(SB)

// outside handles a signal that os/signal does not tell of. One that another
// process has sent is written to the pipe; what the kernel or this process
// itself has sent is the runtime's. The offsets are those of siginfo_t.
TEXT ·outside(SB),NOSPLIT|NOFRAME,$0
	CMPL	8(SI), $0 // si_code: above 0 the kernel has sent it
	JGT	runtime
	MOVL	16(SI), AX // si_pid
	CMPL	AX, ·self(SB)
	JEQ	runtime
	MOVL	$1, AX // write, of the first byte of si_signo
	MOVL	·pipe(SB), DI
	MOVL	$1, DX
	SYSCALL
	RET
runtime:
	MOVQ	·runtimeHandler(SB), AX
	JMP	AX

// end ends the process with 128+n for signal n, as PID 1 cannot do by the signal.
TEXT ·end(SB),NOSPLIT|NOFRAME,$0
	ADDL	$128, DI
	MOVL	$231, AX // exit_group
	SYSCALL
	INT	$3

TEXT ·outsideHandler(SB),NOSPLIT,$0-8
	LEAQ	·outside(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

TEXT ·endHandler(SB),NOSPLIT,$0-8
	LEAQ	·end(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
