import DeviceModel

extension Scanout {
  /// The rows, or parts of a row, that dirty pages of VRAM cover.
  func damage(in pages: DirtyPages) -> [Rect] {
    guard !pages.isEmpty, stride > 0, height > 0 else { return [] }
    let end = offset + stride * height
    var rects: [Rect] = []
    var run: Range<Int>?
    for page in offset / DirtyPages.pageSize..<(end + DirtyPages.pageSize - 1) / DirtyPages.pageSize
    where pages.contains(page: page) {
      let start = page * DirtyPages.pageSize
      if let open = run, open.upperBound == start {
        run = open.lowerBound..<start + DirtyPages.pageSize
      } else {
        if let run { append(run, to: &rects) }
        run = start..<start + DirtyPages.pageSize
      }
    }
    if let run { append(run, to: &rects) }
    return rects
  }

  private func append(_ bytes: Range<Int>, to rects: inout [Rect]) {
    let first = max(bytes.lowerBound - offset, 0)
    let last = min(bytes.upperBound - offset, stride * height) - 1
    guard first <= last else { return }
    let top = first / stride
    let bottom = last / stride
    guard top == bottom else {
      rects.append(Rect(x: 0, y: top, width: width, height: bottom - top + 1))
      return
    }
    let left = first % stride / format.bytesPerPixel
    let right = min(last % stride / format.bytesPerPixel + 1, width)
    // A page beyond the right edge, in the part of a virtual screen not shown.
    if left < right { rects.append(Rect(x: left, y: top, width: right - left, height: 1)) }
  }
}
