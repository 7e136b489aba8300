// 16 x 16, the size most Vulkan drivers have.
enable wgpu_cooperative_matrix;
#import lib/coop

alias TileA = coop_mat16x16<f16, A>;
alias TileB = coop_mat16x16<f16, B>;
alias TileC = coop_mat16x16<f32, C>;
