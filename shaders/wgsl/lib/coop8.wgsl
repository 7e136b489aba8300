// 8 x 8, the size of Metal's simdgroup matrices.
enable wgpu_cooperative_matrix;
#import lib/coop

alias TileA = coop_mat8x8<f16, A>;
alias TileB = coop_mat8x8<f16, B>;
alias TileC = coop_mat8x8<f32, C>;
