import CZlib
import CZstd

/// Compressed clusters: raw deflate, or zstd (docs/interop/qcow2, compression_type).
package enum ClusterCompression {
  /// Fills `output` from the beginning of `input`, behind which there may be anything:
  /// "decompression stops when it has produced a cluster of data".
  ///
  /// - Returns: whether it could.
  package static func decompress(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer,
    _ compression: Qcow2Header.Compression
  ) -> Bool {
    switch compression {
    case .zlib: inflate(input, output)
    case .zstd: decompressZstd(input, output)
    }
  }

  /// What `input` compresses to; `nil` when that is no smaller than it.
  package static func compress(
    _ input: UnsafeRawBufferPointer, _ compression: Qcow2Header.Compression
  ) -> [UInt8]? {
    var output = [UInt8](repeating: 0, count: input.count)
    // SAFETY: the buffer is used only within the call.
    let count = output.withUnsafeMutableBytes { buffer in
      switch compression {
      case .zlib: deflate(input, buffer)
      case .zstd: compressZstd(input, buffer)
      }
    }
    guard let count, count > 0, count < input.count else { return nil }
    output.removeLast(output.count - count)
    return output
  }

  private static func stream(
    _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
  ) -> z_stream {
    var stream = z_stream()
    stream.next_in = UnsafeMutableRawPointer(mutating: input.baseAddress)?
      .assumingMemoryBound(to: UInt8.self)  // SAFETY: raw bytes; zlib only reads them.
    stream.avail_in = UInt32(clamping: input.count)
    stream.next_out = output.baseAddress?
      .assumingMemoryBound(to: UInt8.self)  // SAFETY: raw bytes, as many as avail_out says.
    stream.avail_out = UInt32(clamping: output.count)
    return stream
  }

  private static func inflate(
    _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
  ) -> Bool {
    var stream = stream(input, output)
    let size = Int32(MemoryLayout<z_stream>.size)
    // Negative: raw deflate; 15 is the largest window that an image may have used.
    guard inflateInit2_(&stream, -15, ZLIB_VERSION, size) == Z_OK else { return false }
    defer { inflateEnd(&stream) }
    let result = CZlib.inflate(&stream, Z_FINISH)
    return stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR)
  }

  private static func deflate(
    _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
  ) -> Int? {
    var stream = stream(input, output)
    let size = Int32(MemoryLayout<z_stream>.size)
    // QEMU reads windows of 2^12 bytes only.
    let isBegun =
      deflateInit2_(
        &stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size)
      == Z_OK
    guard isBegun else { return nil }
    defer { deflateEnd(&stream) }
    guard CZlib.deflate(&stream, Z_FINISH) == Z_STREAM_END else { return nil }
    return output.count - Int(stream.avail_out)
  }

  private static func decompressZstd(
    _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard let stream = ZSTD_createDStream() else { return false }
    defer { ZSTD_freeDStream(stream) }
    var source = ZSTD_inBuffer(src: input.baseAddress, size: input.count, pos: 0)
    var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
    while target.pos < target.size {
      let before = (source.pos, target.pos)
      let result = ZSTD_decompressStream(stream, &target, &source)
      guard ZSTD_isError(result) == 0, before != (source.pos, target.pos) else { return false }
    }
    return true
  }

  private static func compressZstd(
    _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
  ) -> Int? {
    let count = ZSTD_compress(
      output.baseAddress, output.count, input.baseAddress, input.count, 3)
    return ZSTD_isError(count) == 0 ? count : nil
  }
}
