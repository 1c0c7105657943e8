/* How fast memory can be read, in the decoder's own way: compiled beside its headers by generation_peers.py. */

#include "simd.h"

/* Read `count` floats once with all threads, to measure how fast memory can be read. */
float gpt_read_all(const float* from, int64_t count, int32_t threads) {
    float total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        long begin, end;
        floats sums[4] = {{0}};
        my_range(count / (4 * LANES), &begin, &end);
        for (long i = begin * 4 * LANES; i < end * 4 * LANES; i += 4 * LANES)
#pragma GCC unroll 8
            for (int j = 0; j < 4; j++) sums[j] += *(const floats*)(from + i + j * LANES);
        total += sum(sums[0] + sums[1] + sums[2] + sums[3]);
    }
    return total;
}
