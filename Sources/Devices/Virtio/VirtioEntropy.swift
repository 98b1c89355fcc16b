import DeviceModel

/// Where random bytes come from. Device lock held; must not block.
package protocol EntropySource: AnyObject {
  func bytes(_ count: Int) -> [UInt8]
}

/// The entropy device (VIRTIO 1.2, section 5.4).
package final class VirtioEntropy: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
  }

  private static let queueSize: UInt16 = 64
  /// The most that one buffer is given; drivers ask again.
  private static let most = 4096

  package let type: UInt16 = 4
  package let name = "virtio-rng"
  package let classCode: UInt32 = 0x00FF00
  package let features: UInt64 = 0
  package let queueSizes = [VirtioEntropy.queueSize]
  package weak var transport: (any VirtioTransport)?
  private let source: any EntropySource

  package init(source: any EntropySource, state: State?) { self.source = source }

  package func saveState() -> State { State() }
  package func reset() {}
  package func resume() {}
  package func start(features: UInt64) {}
  package func readConfiguration(_ offset: Int) -> UInt8 { 0 }
  package func writeConfiguration(_ offset: Int, _ value: UInt8) {}

  package func notify(queue: Int) {
    guard let transport else { return }
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(queue) else { return }
      let bytes = source.bytes(min(chain.writableCount, Self.most))
      guard transport.write(bytes, to: chain, at: 0) else { return }
      transport.complete(chain, written: bytes.count, on: queue)
    }
    transport.notifyAgain(queue)
  }
}
