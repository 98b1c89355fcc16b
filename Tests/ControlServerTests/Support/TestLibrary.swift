import Brokering
import Synchronization

/// A library in memory, whose images are ready at once.
final class TestLibrary: ImageLibrary {
  private let content = Mutex([
    TestLibrary.image(ImageName(rawValue: "debian"), origin: "trixie")
  ])

  static func image(
    _ name: ImageName, origin: String, disks: [ImageDisk] = []
  ) -> LibraryImage {
    LibraryImage(
      name: name, state: .ready, kind: .disk, path: "/images/\(name)", size: 1 << 30,
      allocated: 1 << 20, origin: origin, created: Timestamp(milliseconds: 0), disks: disks)
  }

  /// An image that these are based on.
  func add(_ name: String, with disks: [ImageDisk]) {
    content.withLock {
      $0.append(Self.image(ImageName(rawValue: name), origin: "a test", disks: disks))
    }
  }

  func images() async throws(BrokerError) -> [LibraryImage] { content.withLock { $0 } }

  func importFile(_ file: String, as name: ImageName) async throws(BrokerError) {
    content.withLock { $0.append(Self.image(name, origin: file)) }
  }

  func build(_ recipe: ImageRecipe, as name: ImageName) async throws(BrokerError) {
    content.withLock { $0.append(Self.image(name, origin: recipe.suite)) }
  }

  func delete(
    _ name: ImageName, isInUse: @escaping @Sendable () async -> Bool
  ) async throws(BrokerError) {
    content.withLock { $0.removeAll { $0.name == name } }
  }
}
