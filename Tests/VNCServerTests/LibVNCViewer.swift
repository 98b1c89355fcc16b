import CVNCClient
import DeviceModel
import Glibc
import LinuxSystem

/// libvncclient as a viewer: the decoders of somebody else. One thread.
final class LibVNCViewer {
  struct Failure: Error, CustomStringConvertible { let description: String }

  private let client: UnsafeMutablePointer<rfbClient>
  private let encodings: UnsafeMutablePointer<CChar>?

  /// - Parameter quality: a JPEG quality 0 … 9; `nil` for none.
  init(port: UInt16, encodings: String, quality: Int32? = nil) throws {
    carrel_silence_vncclient()
    guard let client = rfbGetClient(8, 3, 4) else { throw Failure(description: "no memory") }
    self.client = client
    self.encodings = strdup(encodings)
    client.pointee.serverHost = strdup("127.0.0.1")
    client.pointee.serverPort = Int32(port)
    client.pointee.canHandleNewFBSize = 1
    client.pointee.appData.encodingsString = UnsafePointer(self.encodings)
    client.pointee.appData.enableJPEG = quality == nil ? 0 : 1
    client.pointee.appData.qualityLevel = quality ?? 9
    client.pointee.appData.compressLevel = 1
    client.pointee.format.redShift = 16
    client.pointee.format.greenShift = 8
    client.pointee.format.blueShift = 0
    guard rfbInitClient(client, nil, nil) != 0 else { throw Failure(description: "no session") }
  }

  deinit {
    free(client.pointee.frameBuffer)
    rfbClientCleanup(client)
    free(encodings)
  }

  /// Takes messages until `condition` holds (10 s at most).
  func run(until condition: () -> Bool) throws -> Bool {
    let deadline = MonotonicClock.now + 10_000_000_000
    while !condition() {
      guard MonotonicClock.now < deadline else { return false }
      // What was read along with the last message does not count as readable.
      let ready = client.pointee.buffered > 0 ? 1 : WaitForMessage(client, 50_000)
      guard ready >= 0 else { throw Failure(description: "the connection broke") }
      if ready > 0, HandleRFBServerMessage(client) == 0 {
        throw Failure(description: "the server's message was not understood")
      }
    }
    return true
  }

  /// How far the picture is from the machine's: the largest difference of a colour.
  func difference(_ scanout: Scanout, _ machine: FakeMachine) -> Int {
    guard Int(client.pointee.width) == scanout.width,
      Int(client.pointee.height) == scanout.height, let bytes = client.pointee.frameBuffer
    else { return 256 }
    var worst = 0
    for y in 0..<scanout.height {
      for x in 0..<scanout.width {
        // SAFETY: libvncclient's buffer holds width × height pixels of four bytes.
        let mine = UnsafeRawPointer(bytes).load(
          fromByteOffset: (y * scanout.width + x) * 4, as: UInt32.self)
        let real = machine.pixel(scanout, x: x, y: y)
        guard (mine ^ real) & 0xFF_FFFF != 0 else { continue }
        for shift: UInt32 in [0, 8, 16] {
          worst = max(worst, abs(Int(mine >> shift & 255) - Int(real >> shift & 255)))
        }
      }
    }
    return worst
  }
}
