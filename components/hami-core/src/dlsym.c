/*
 * The exported dlsym and dlvsym. Written in assembly because a look-up that is none of ours must
 * reach glibc as a jump: glibc reads its return address to learn who asks, and RTLD_NEXT means
 * "after the asker".
 */

#if defined(__x86_64__)

#define INTERPOSE(name)                                                                            \
    __asm__(".text\n"                                                                              \
            ".p2align 4\n"                                                                         \
            ".globl " #name "\n"                                                                   \
            ".type " #name ", @function\n" #name ":\n"                                             \
            "    .cfi_startproc\n"                                                                 \
            "    endbr64\n"                                                                        \
            "    subq $24, %rsp\n"                                                                 \
            "    .cfi_adjust_cfa_offset 24\n"                                                      \
            "    movq %rdi, (%rsp)\n"                                                              \
            "    movq %rsi, 8(%rsp)\n"                                                             \
            "    movq %rdx, 16(%rsp)\n"                                                            \
            "    call hami_route_" #name "\n"                                                      \
            "    movq %rdx, %r11\n"                                                                \
            "    movq (%rsp), %rdi\n"                                                              \
            "    movq 8(%rsp), %rsi\n"                                                             \
            "    movq 16(%rsp), %rdx\n"                                                            \
            "    addq $24, %rsp\n"                                                                 \
            "    .cfi_adjust_cfa_offset -24\n"                                                     \
            "    testq %rax, %rax\n"                                                               \
            "    je 1f\n"                                                                          \
            "    jmp *%rax\n"                                                                      \
            "1:  movq %r11, %rax\n"                                                                \
            "    ret\n"                                                                            \
            "    .cfi_endproc\n"                                                                   \
            ".size " #name ", .-" #name "\n")

#elif defined(__aarch64__)

#define INTERPOSE(name)                                                                            \
    __asm__(".text\n"                                                                              \
            ".p2align 4\n"                                                                         \
            ".globl " #name "\n"                                                                   \
            ".type " #name ", %function\n" #name ":\n"                                             \
            "    .cfi_startproc\n"                                                                 \
            "    hint #34\n" /* bti c */                                                           \
            "    stp x29, x30, [sp, #-48]!\n"                                                      \
            "    .cfi_def_cfa_offset 48\n"                                                         \
            "    .cfi_offset 29, -48\n"                                                            \
            "    .cfi_offset 30, -40\n"                                                            \
            "    mov x29, sp\n"                                                                    \
            "    stp x0, x1, [sp, #16]\n"                                                          \
            "    str x2, [sp, #32]\n"                                                              \
            "    bl hami_route_" #name "\n"                                                        \
            "    mov x16, x0\n"                                                                    \
            "    mov x17, x1\n"                                                                    \
            "    ldr x2, [sp, #32]\n"                                                              \
            "    ldp x0, x1, [sp, #16]\n"                                                          \
            "    ldp x29, x30, [sp], #48\n"                                                        \
            "    .cfi_def_cfa_offset 0\n"                                                          \
            "    .cfi_restore 29\n"                                                                \
            "    .cfi_restore 30\n"                                                                \
            "    cbz x16, 1f\n"                                                                    \
            "    br x16\n"                                                                         \
            "1:  mov x0, x17\n"                                                                    \
            "    ret\n"                                                                            \
            "    .cfi_endproc\n"                                                                   \
            ".size " #name ", .-" #name "\n")

#else
#error "dlsym needs a jump for this architecture"
#endif

INTERPOSE(dlsym);
INTERPOSE(dlvsym);
