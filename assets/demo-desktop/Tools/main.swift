// Draws the demo desktop's glyph atlases and pictures at build time.
//
//   make-art OUTPUT
//
// Output (little-endian): "CART", u32 font count, u32 image count, u32 offset of each
// font and then of each image from the start of the file; each starts at a multiple
// of four bytes. The order is that of `Font` and `Picture` in the desktop's sources.
import Foundation

let fonts = [
  FontRenderer(family: "DejaVu Sans", isBold: false, size: 13),
  FontRenderer(family: "DejaVu Sans", isBold: true, size: 13),
  FontRenderer(family: "DejaVu Sans", isBold: false, size: 11),
  FontRenderer(family: "DejaVu Sans Mono", isBold: false, size: 13),
  FontRenderer(family: "DejaVu Sans", isBold: false, size: 26),
].map { $0.render() }
let images = Icons.all()

var header = Bytes()
header.values += Array("CART".utf8)
header.append(UInt32(fonts.count))
header.append(UInt32(images.count))
var body: [UInt8] = []
let bodyStart = 12 + (fonts.count + images.count) * 4
for part in fonts + images {
  header.append(UInt32(bodyStart + body.count))
  body += part
  while body.count % 4 != 0 { body.append(0) }
}

guard CommandLine.arguments.count == 2 else {
  FileHandle.standardError.write(Data("usage: make-art OUTPUT\n".utf8))
  exit(64)
}
do {
  try Data(header.values + body).write(to: URL(fileURLWithPath: CommandLine.arguments[1]))
} catch {
  FileHandle.standardError.write(Data("make-art: \(error)\n".utf8))
  exit(1)
}
