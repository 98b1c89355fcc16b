import Brokering
import Foundation
import Hummingbird
import NIOCore

/// What a route knows about its request, and about the connection it came over.
struct ControlContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  let channel: any Channel

  init(source: ApplicationRequestContextSource) {
    coreContext = .init(source: source)
    channel = source.channel
  }
}

/// A request that says more than any has to.
struct OversizedBody: Error {
  let limit: Int
}

extension Request {
  /// The JSON body.
  func body<Value: Decodable>(as type: Value.Type) async throws -> Value {
    let bytes: ByteBuffer
    do {
      bytes = try await body.collect(upTo: ControlServer.largestBody)
    } catch is NIOTooManyBytesError {
      throw OversizedBody(limit: ControlServer.largestBody)
    }
    do {
      return try JSONDecoder().decode(type, from: Data(buffer: bytes))
    } catch {
      throw BrokerError(.invalid, "the body is not what \(method) \(uri.path) takes", cause: error)
    }
  }

  /// `?force=true`.
  var force: Bool { uri.queryParameters["force"] == "true" }
}

extension ControlContext {
  /// A checked name out of the path.
  func name<Name: Identifier>(_ key: String, as type: Name.Type) throws -> Name {
    let text = try parameters.require(key)
    return try Name(checking: text.removingPercentEncoding ?? text)
  }
}
