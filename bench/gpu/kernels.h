/* The kernels, as PTX that every driver from CUDA 11 on compiles for its card. The fake driver
 * takes a kernel's time from its name. */
#ifndef BENCH_GPU_KERNELS_H
#define BENCH_GPU_KERNELS_H

static const char *const kernels =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry empty_k_5us() { ret; }\n"
    /* n dependent multiplications in every thread: compute alone */
    ".visible .entry busy_k_1000us(.param .u32 n, .param .u64 out)\n"
    "{\n"
    "    .reg .pred %p;\n"
    "    .reg .b32 %r<3>;\n"
    "    .reg .f32 %f<3>;\n"
    "    .reg .b64 %d<3>;\n"
    "    ld.param.u32 %r1, [n];\n"
    "    ld.param.u64 %d1, [out];\n"
    "    cvta.to.global.u64 %d2, %d1;\n"
    "    mov.u32 %r2, %tid.x;\n"
    "    cvt.rn.f32.u32 %f1, %r2;\n"
    "    mov.f32 %f2, 0f3F800001;\n"
    "again:\n"
    "    fma.rn.f32 %f1, %f1, %f2, %f2;\n"
    "    sub.u32 %r1, %r1, 1;\n"
    "    setp.ne.u32 %p, %r1, 0;\n"
    "    @%p bra again;\n"
    "    setp.eq.f32 %p, %f1, 0f00000000;\n" /* never, but the compiler cannot know */
    "    @%p st.global.f32 [%d2], %f1;\n"
    "    ret;\n"
    "}\n"
    /* c[i] = a[i] + 3 b[i] over three parts of one buffer: bandwidth alone */
    ".visible .entry triad_k_200us(.param .u32 n, .param .u64 buffer)\n"
    "{\n"
    "    .reg .pred %p;\n"
    "    .reg .b32 %r<6>;\n"
    "    .reg .f32 %f<3>;\n"
    "    .reg .b64 %d<7>;\n"
    "    ld.param.u32 %r1, [n];\n"
    "    ld.param.u64 %d1, [buffer];\n"
    "    mov.u32 %r2, %ctaid.x;\n"
    "    mov.u32 %r3, %ntid.x;\n"
    "    mov.u32 %r4, %tid.x;\n"
    "    mad.lo.u32 %r5, %r2, %r3, %r4;\n"
    "    setp.ge.u32 %p, %r5, %r1;\n"
    "    @%p ret;\n"
    "    cvta.to.global.u64 %d2, %d1;\n"
    "    mul.wide.u32 %d3, %r5, 4;\n"
    "    mul.wide.u32 %d4, %r1, 4;\n"
    "    add.u64 %d5, %d2, %d3;\n"
    "    ld.global.f32 %f1, [%d5];\n"
    "    add.u64 %d6, %d5, %d4;\n"
    "    ld.global.f32 %f2, [%d6];\n"
    "    fma.rn.f32 %f1, %f2, 0f40400000, %f1;\n"
    "    add.u64 %d6, %d6, %d4;\n"
    "    st.global.f32 [%d6], %f1;\n"
    "    ret;\n"
    "}\n";

#endif
