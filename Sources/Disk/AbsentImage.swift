import DeviceModel

/// Stands for an image that is not known yet: nothing is there to be read.
final class AbsentImage: DiskImage {
  let byteCount: UInt64
  let isReadOnly: Bool

  init(byteCount: UInt64, isReadOnly: Bool) {
    (self.byteCount, self.isReadOnly) = (byteCount, isReadOnly)
  }

  var path: String { "" }
  var layers: [LayerDescription] { [] }

  private var problem: BlockError {
    BlockError(kind: .medium, context: "the disk has no image yet")
  }

  func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) { completion(.failure(problem)) }

  func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) { completion(.failure(problem)) }

  func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    completion(.failure(problem))
  }

  func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
  ) { completion(.failure(problem)) }

  func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) { completion(.failure(problem)) }

  func synchronize() {}
  func close() {}
}
